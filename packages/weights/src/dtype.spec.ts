import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bfloatToFloat, floatToBfloat, floatToHalf, halfToFloat } from './dtype';
import { WeightsError } from './errors';
import { openWeights } from './files';
import type { WeightReader } from './reader';

/** Made by tools/parity/make_weights_fixture.py. */
const fixture = fileURLToPath(new URL('../fixtures/dtypes.safetensors', import.meta.url));
const bits = (values: Float32Array) => new Uint32Array(values.buffer, values.byteOffset, values.length);

describe('a file written by torch', () => {
  let reader: WeightReader;
  beforeAll(async () => {
    reader = await openWeights(fixture);
  });
  afterAll(() => reader.close());

  it.each(['half', 'bfloat', 'double'])(
    '%s is converted to the same float32 bits as in torch',
    async (name) => {
      const [ours, theirs] = [await reader.readFloat32(name), await reader.readFloat32(`${name}.float`)];
      expect(bits(ours)).toEqual(bits(theirs));
    },
  );

  it.each([
    ['half', floatToHalf],
    ['bfloat', floatToBfloat],
  ] as const)('float32 rounds to the %s bits torch rounds to', async (name, round) => {
    const raw = await reader.readRaw(name);
    expect(round(await reader.readFloat32('float'))).toEqual(new Uint16Array(raw.buffer));
  });

  it('reads integers, booleans, scalars and empty tensors', async () => {
    expect([...(await reader.readFloat32('i64'))]).toEqual([-(2 ** 24), -1, 0, 1, 2 ** 20, 2 ** 24]);
    expect([...(await reader.readFloat32('i32'))]).toEqual([-7, 7]);
    expect([...(await reader.readFloat32('i16'))]).toEqual([-(2 ** 15), 2 ** 15 - 1]);
    expect([...(await reader.readFloat32('i8'))]).toEqual([-128, 127]);
    expect([...(await reader.readFloat32('u8'))]).toEqual([0, 255, 3]);
    expect([...(await reader.readFloat32('bool'))]).toEqual([1, 0, 1]);
    expect([...(await reader.readFloat32('scalar'))]).toEqual([2.5]);
    expect(await reader.readFloat32('empty')).toHaveLength(0);
    expect(reader.entries.get('empty')!.shape).toEqual([0, 4]);
    expect(reader.entries.get('scalar')!.shape).toEqual([]);
    expect(reader.metadata).toEqual({ format: 'pt', 'made-by': 'make_weights_fixture.py' });
  });

  it('rejects an integer that float32 cannot represent', async () => {
    await expect(reader.readFloat32('i64.big')).rejects.toThrow(
      /"i64.big": element 1 is 1099511627777.*readRaw/,
    );
    await expect(reader.readFloat32('i64.big')).rejects.toThrow(WeightsError);
  });
});

describe('16-bit floats', () => {
  it('every F16 and BF16 pattern is unchanged by conversion to float32 and back', () => {
    const all = Uint16Array.from({ length: 65_536 }, (_, i) => i);
    const floats = new Float32Array(65_536);
    halfToFloat(all, floats);
    const isNaNHalf = (h: number) => (h & 0x7fff) > 0x7c00;
    floatToHalf(floats).forEach((back, h) => {
      if (isNaNHalf(h) ? !isNaNHalf(back) : back !== h) throw new Error(`F16 ${h} came back as ${back}`);
    });
    bfloatToFloat(all, floats);
    const isNaNBfloat = (b: number) => (b & 0x7fff) > 0x7f80;
    floatToBfloat(floats).forEach((back, b) => {
      if (isNaNBfloat(b) ? !isNaNBfloat(back) : back !== b) throw new Error(`BF16 ${b} came back as ${back}`);
    });
  });

  it('no representable value is nearer than the rounded one', () => {
    const next = (
      round: (x: Float32Array) => Uint16Array,
      widen: (h: Uint16Array, to: Float32Array) => void,
    ) =>
      fc.assert(
        fc.property(fc.float({ noNaN: true, noDefaultInfinity: true, min: -65000, max: 65000 }), (value) => {
          const h = round(Float32Array.of(value))[0]!;
          const around = new Float32Array(3);
          widen(Uint16Array.of(h, h - 1, h + 1), around);
          const [own, below, above] = [...around].map((x) => Math.abs(x - value));
          expect(
            own! <= (Number.isNaN(below!) ? Infinity : below!) &&
              own! <= (Number.isNaN(above!) ? Infinity : above!),
          ).toBe(true);
        }),
      );
    next(floatToHalf, (h, to) => halfToFloat(h, to));
    next(floatToBfloat, (h, to) => bfloatToFloat(h, to));
  });
});

/** Matmul with weights that keep their encoding: every encoding, both directions, every level. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import type { Encoding, Precision } from '@blip2/nn';
import { afterAll, describe, expect, it } from 'vitest';
import type { StoredHandle } from '../src/addon';
import * as reference from '../spec/scalar-reference';
import {
  addon,
  bfloat16Levels,
  expectClose,
  levels,
  loaded,
  misaligned,
  numbers,
  run,
  sizes,
} from '../spec/fixtures';

type Kind = Extract<Encoding['kind'], 'F32' | 'F16' | 'BF16'>;
const kinds: Kind[] = ['F32', 'BF16', 'F16'];
/** Levels that add bfloat16 use the float32 matmul of the level below. */
const cases = [
  ...levels.filter((level) => !bfloat16Levels.includes(level)).map((level) => [level, 'float32'] as const),
  ...bfloat16Levels.map((level) => [level, 'bfloat16'] as const),
];

const folder = mkdtempSync(join(tmpdir(), 'blip2-stored-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** The first numbers of a file, which begin at an odd address, as a stored weight; released after `f`. */
function withStored(kind: Kind, rows: number, columns: number, file: string, f: (w: StoredHandle) => void) {
  const bytes = rows * columns * (kind === 'F32' ? 4 : 2);
  const weight = addon.storeWeight(kind, rows, columns, [{ file, begin: 1, bytes }], false);
  f(weight);
  addon.releaseStored(weight);
}

/** Writes these bytes after a first one. */
function writeOdd(name: string, bytes: Uint8Array): string {
  const file = join(folder, name);
  writeFileSync(file, Buffer.concat([Buffer.alloc(1), bytes]));
  return file;
}

/** Random numbers, more than any weight has, by encoding. */
const encoded = new Map(
  kinds.map((kind) => {
    const { bytes, exact } = stored(numbers(1 << 18, 2), kind);
    return [kind, { file: writeOdd(kind, bytes), exact }] as const;
  }),
);

/** The encoded and the exact values of these numbers. */
function stored(values: Float32Array, kind: Kind): { bytes: Uint8Array; exact: Float32Array } {
  const width = kind === 'F32' ? 4 : 2;
  const bytes = new Uint8Array(values.length * width);
  const view = new DataView(bytes.buffer);
  const exact = kind === 'BF16' ? reference.toBFloat16(values) : values.slice();
  const one = new Float32Array(1);
  const word = new Uint32Array(one.buffer);
  for (let i = 0; i < values.length; i++) {
    one[0] = exact[i]!;
    if (kind === 'F32') view.setFloat32(4 * i, exact[i]!, true);
    if (kind === 'BF16') view.setUint16(2 * i, word[0]! >>> 16, true);
    if (kind === 'F16') {
      const bits = reference.toFloat16Bits(exact[i]!);
      view.setUint16(2 * i, bits, true);
      exact[i] = reference.fromFloat16Bits(bits);
    }
  }
  return { bytes, exact };
}

const name = loaded.addon
  ? 'native matmul with stored weights'
  : `native matmul with stored weights (SKIPPED: ${loaded.why})`;
describe.skipIf(!loaded.addon)(name, () => {
  const check = (precision: Precision, kind: Kind, transposed: boolean, [M, N, K]: number[]) => {
    const [rows, columns] = transposed ? [N!, K!] : [K!, N!];
    const x = misaligned(numbers(M! * K!, 1), 3);
    const { file, exact } = encoded.get(kind)!;
    const bias = (M! + N!) % 2 ? numbers(N!, 3) : null;
    const round = precision === 'bfloat16' ? reference.toBFloat16 : (values: Float32Array) => values;
    const expected = reference
      .matMul(round(x), false, round(exact.subarray(0, rows * columns)), transposed, M!, N!, K!)
      .map((y, i) => y + (bias?.[i % N!] ?? 0));
    const sizes = [M!, N!, K!] as const;
    withStored(kind, rows, columns, file, (weight) => {
      const [y] = run((make) =>
        addon.timesWeight(x, weight, transposed, bias, 'none', null, make(M! * N!), ...sizes, precision),
      );
      // The reference has the same operands; float32 sums of K products of size 1 have an error of about √K · 2^-24.
      expectClose(
        y!,
        expected,
        2e-6 * Math.sqrt(K!),
        `${kind} transposed=${transposed} M=${M} N=${N} K=${K}`,
      );
    });
  };

  describe.each(cases)('%s %s', (level, precision) => {
    // With sanitizers this takes long, and vitest ends a worker that blocks for a minute: hence the pauses.
    it.each(kinds)('%s at odd sizes', async (kind) => {
      addon.setInstructionSet(level);
      for (const M of sizes) {
        await turn();
        for (const N of sizes)
          for (const transposed of [true, false])
            check(precision, kind, transposed, [M, N, (M * 7 + N) % 65 || 65]);
      }
    });

    it.each(kinds)('%s with any number of rows of x, and more than one block', async (kind) => {
      addon.setInstructionSet(level);
      const shapes = [
        ...[1, 2, 15, 33, 383, 769, 1025, 2049].map((K) => [19, 37, K]),
        ...[1, 2, 6, 9, 12, 18, 100, 176, 300].map((M) => [M, 70, 197]),
        ...[
          [49, 33, 4097],
          [9, 4300, 11],
          [1, 4300, 11],
          [230, 1030, 70],
        ],
      ];
      for (const shape of shapes) {
        await turn();
        for (const transposed of [true, false]) check(precision, kind, transposed, shape);
      }
    });
  });

  it.each(levels)('%s float32: every finite value of a 16-bit encoding is read exactly', (level) => {
    addon.setInstructionSet(level);
    const one = Float32Array.of(1);
    const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const file = writeOdd('bits', new Uint8Array(bits.buffer));
    for (const kind of ['BF16', 'F16'] as const)
      for (const transposed of [true, false]) {
        const [rows, columns] = transposed ? [65536, 1] : [1, 65536];
        const y = new Float32Array(65536);
        withStored(kind, rows!, columns!, file, (weight) =>
          addon.timesWeight(one, weight, transposed, null, 'none', null, y, 1, 65536, 1),
        );
        for (let i = 0; i < 65536; i++) {
          const expected =
            kind === 'F16'
              ? reference.fromFloat16Bits(i)
              : new Float32Array(Uint32Array.of(i << 16).buffer)[0]!;
          // A sum starts with +0, so -0 becomes +0.
          if (!Object.is(y[i], expected + 0))
            expect.fail(`${kind} ${i.toString(16)}: expected ${expected}, found ${y[i]}`);
        }
      }
  });
});

/** Stored weights in this package; the specs of backend-native test their values. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  add,
  dispose,
  linear,
  memory,
  mul,
  part,
  peakBytes,
  scale,
  storedTensor,
  sum,
  tensor,
  tidy,
  valueAndGrads,
  variable,
} from './index';
import { useBackend } from './node';
import type { Scalar, Span, StoredWeight, Tensor } from './index';
import { availableBackends } from './node';

const backends = await availableBackends();
const dir = mkdtempSync(join(tmpdir(), 'nn-stored-'));
const file = join(dir, 'weights');
const values = Float32Array.from({ length: 12 }, (_, i) => i / 3);
writeFileSync(file, values);
const weightOf = (data: Span): StoredWeight => ({ shape: [3, 4], data, encoding: { kind: 'F32' } });
const inFile = weightOf({ file, begin: 0, bytes: 48 });
const inMemory = weightOf({ bytes: new Uint8Array(values.buffer) });
afterAll(() => rmSync(dir, { recursive: true }));

describe.skipIf(!backends.includes('native'))('storedTensor on native', () => {
  beforeAll(() => useBackend('native'));

  it.each([
    ['in a file', inFile],
    ['in memory', inMemory],
  ])('%s: a frozen weight in a step, freed afterwards', async (_, source) => {
    const before = memory();
    const weight = storedTensor(source, 1)!;
    expect(memory()).toMatchObject({ numBytes: before.numBytes, numBytesStored: 48 });
    const plain = tensor(values, [3, 4]);
    const x = variable(tensor([1, 2, -1, 0.5], [1, 4]));
    const run = async (w: Tensor) => {
      const f = () => sum<Scalar>(mul(linear({ weight: w as never }, x), linear({ weight: w as never }, x)));
      const { value, grads } = tidy(() => valueAndGrads(f, [x]));
      const found = [...(await value.data()), ...(await grads[0].data())];
      dispose([value, grads]);
      return found;
    };
    expect(await run(weight)).toEqual(await run(plain));
    dispose([weight, plain, x]);
    expect(memory().numBytesStored).toBe(0);
  });

  it('counts the most bytes that tensors take at once', async () => {
    const x = tensor(new Float32Array(2 ** 16), [2 ** 16]);
    const threeAtOnce = async () => dispose(tidy(() => add(add(x, x), add(x, x))));
    expect(await peakBytes(threeAtOnce)).toBe(3 * 4 * 2 ** 16);
    expect(await peakBytes(async () => dispose(add(x, x)))).toBe(4 * 2 ** 16);
    dispose(x);
  });

  it('becomes float32 in memory if it trains', async () => {
    const weight = storedTensor(inFile, 1)!;
    const leaf = variable(weight, 'w');
    dispose(weight);
    expect(memory().numBytesStored).toBe(0);
    expect(await leaf.data()).toEqual(values);
    dispose(leaf);
  });
});

describe.each(backends)('on %s', (name) => {
  beforeAll(() => useBackend(name));

  it('storedTensor is undefined if the backend cannot store the encoding, or the weight is too small', () => {
    const weight = storedTensor(inFile, name === 'native' ? Infinity : 1);
    expect(weight).toBeUndefined();
    const unknown = { ...inFile, encoding: { kind: 'nf4' as 'F32' } };
    expect(storedTensor(unknown, 1)).toBeUndefined();
  });

  it('part is a constant for which the tape keeps nothing, unless its parameters need gradients', async () => {
    const x = variable(tensor([2, 3], [2]));
    const before = memory().numTensors;
    const peak: number[] = [];
    const f = (params: object) => () => {
      const square = part(params, () => {
        let y: Tensor = x;
        for (let i = 0; i < 5; i++) y = tidy(() => mul(scale(y, 1.5), x));
        return y;
      });
      peak.push(memory().numTensors);
      return sum<Scalar>(mul(square, x));
    };
    const results = [];
    for (const params of [{}, { x }]) {
      const { value, grads } = tidy(() => valueAndGrads(f(params), [x]));
      results.push({ value: (await value.data())[0], grad: [...(await grads[0].data())] });
      dispose([value, grads]);
    }
    const [off, on] = results as [(typeof results)[0], (typeof results)[0]];
    expect(off.value).toBe(on.value);
    const c = 1.5 ** 5;
    [2, 3].forEach((v, i) => {
      expect(off.grad[i]).toBeCloseTo(c * v ** 6, 1); // the square is a number here
      expect(on.grad[i]).toBeCloseTo(7 * c * v ** 6, 0);
    });
    expect(peak[0]! - before).toBeLessThan(peak[1]! - before);
    expect(peak[0]! - before).toBeLessThanOrEqual(2);
    expect(memory().numTensors).toBe(before);
    dispose(x);
  });
});

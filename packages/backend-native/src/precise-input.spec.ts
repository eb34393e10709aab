/** Products with int8 weights whose input keeps its values: the weight's rounding is what is left of the error. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { dispose, linear, memory, preciseLinear, quantised, spansOf, storedTensor, tensor } from '@blip2/nn';
import type { Span, StoredWeight, Tensor, Tensor2D, Tensor3D } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { levels, loaded, numbers } from '../spec/fixtures';

const [M, K, N] = [5, 70, 45];
/** The factors of the weight's columns are not powers of 2. */
const factors = numbers(K, 9).map((x) => 2 ** (3 * x));
/** As activations are: some columns are much larger than the others. */
const x = numbers(M * K, 3).map((value, i) => (i % K === 11 ? 50 * value : value));

const bytes = (array: Float32Array) => ({ bytes: new Uint8Array(array.slice().buffer) });

/** The weight in the encoding INT8, and in a file. */
async function weights(dir: string): Promise<Record<'memory' | 'file', StoredWeight>> {
  const exact: StoredWeight = {
    ...{ shape: [N, K] as const, data: bytes(numbers(N * K, 2)), encoding: { kind: 'F32' as const } },
  };
  const inMemory = quantised(exact, factors)!;
  const parts = spansOf(inMemory) as { bytes: Uint8Array }[];
  const file = join(dir, 'weight');
  await writeFile(file, Buffer.concat([Buffer.alloc(64), ...parts.map((part) => part.bytes)]));
  let begin = 64;
  const [data, scales, columns] = parts.map((part): Span => {
    const span = { file, begin, bytes: part.bytes.length };
    begin += part.bytes.length;
    return span;
  });
  const encoding = { kind: 'INT8' as const, scales: scales!, factors: columns! };
  return { memory: inMemory, file: { ...inMemory, data: data!, encoding } };
}

/** The largest error of y [M, N] against x·Wᵀ in double precision, to the length of x's row times that of W's. */
async function errorOf(y: Tensor, given: Float32Array, weight: Tensor2D): Promise<number> {
  const [found, w] = (await Promise.all([y.data(), weight.data()])) as [Float32Array, Float32Array];
  let most = 0;
  for (let m = 0; m < M; m++)
    for (let n = 0; n < N; n++) {
      const [row, column] = [given.subarray(m * K, (m + 1) * K), w.subarray(n * K, (n + 1) * K)];
      const exact = row.reduce((sum, value, k) => sum + value * column[k]!, 0);
      most = Math.max(
        most,
        Math.abs(found[m * N + n]! - exact) / (Math.hypot(...row) * Math.hypot(...column)),
      );
    }
  return most;
}

describe.skipIf(!loaded.addon)('preciseLinear', () => {
  let dir: string;
  beforeAll(async () => void (dir = await mkdtemp(join(tmpdir(), 'blip2-precise-'))));
  beforeEach(async () => void (await useBackend('native', { precision: 'int8' })));
  afterAll(() => rm(dir, { recursive: true }));

  it.each(['memory', 'file'] as const)('leaves the rounding of the weight alone, in %s', async (where) => {
    const weight = storedTensor((await weights(dir))[where], 1)!;
    const before = memory().numTensors;
    const input = tensor<Tensor2D>(x, [M, K]);
    const [plain, precise] = [linear({ weight }, input), preciseLinear({ weight }, input)];
    const [most, least] = await Promise.all([plain, precise].map((y) => errorOf(y, x, weight)));
    expect(most).toBeGreaterThan(0.01);
    expect(most / least).toBeGreaterThan(150); // rounding x alone is 254 times as exact as in 8 bits
    dispose([input, plain, precise]);
    expect(memory().numTensors).toBe(before);
    weight.dispose();
  });

  it('is the same at every level, and for each row as for the row alone', async () => {
    const weight = storedTensor((await weights(dir)).memory, 1)!;
    const input = tensor<Tensor3D>(x, [1, M, K]);
    const { addon } = loaded;
    const found = [];
    for (const level of levels) {
      addon!.setInstructionSet(level);
      const y = preciseLinear({ weight }, input);
      expect(y.shape).toEqual([1, M, N]);
      found.push([...(await y.data())]);
      y.dispose();
    }
    addon!.setInstructionSet(levels.at(-1)!);
    for (const values of found) expect(values).toEqual(found[0]);
    const row = tensor<Tensor2D>(x.subarray(2 * K, 3 * K), [1, K]);
    const alone = preciseLinear({ weight }, row);
    expect([...(await alone.data())]).toEqual(found[0].slice(2 * N, 3 * N));
    dispose([weight, input, row, alone]);
  });

  it('gives zeros for zeros, and NaN for what is not finite', async () => {
    const weight = storedTensor((await weights(dir)).memory, 1)!;
    const rows = Float32Array.from({ length: 4 * K }, (_, i) => [0, 1e-42, NaN, 1][Math.floor(i / K)]!);
    rows[3 * K] = Infinity;
    const input = tensor<Tensor2D>(rows, [4, K]);
    const y = preciseLinear({ weight }, input);
    const values = (await y.data()) as Float32Array;
    expect([...values.subarray(0, N)]).toEqual(new Array(N).fill(0));
    expect(Math.max(...values.subarray(N, 2 * N).map(Math.abs))).toBeLessThan(1e-30);
    for (const value of values.subarray(2 * N)) expect(value).toBeNaN();
    dispose([weight, input, y]);
  });

  it('is linear with another weight, and in float32', async () => {
    const ordinary = tensor<Tensor2D>(numbers(N * K, 2), [N, K]);
    const input = tensor<Tensor2D>(x, [M, K]);
    for (const precision of ['int8', 'float32'] as const) {
      await useBackend('native', { precision });
      const [one, other] = [linear({ weight: ordinary }, input), preciseLinear({ weight: ordinary }, input)];
      expect([...(await one.data())]).toEqual([...(await other.data())]);
      dispose([one, other]);
    }
    dispose([ordinary, input]);
  });
});

/** The precision bfloat16: the numbers of float32 with rounded operands, at each level that the adapter has. */
import * as nn from '@blip2/nn';
import type { StoredWeight, Tensor, Tensor1D, Tensor2D } from '@blip2/nn';
import { conformanceChecks } from '@blip2/nn/conformance';
import { useBackend } from '@blip2/nn/node';
import { backend } from '@tensorflow/tfjs-core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { useHalfFloatDriver } from '../spec/software';
import type { GpuBackend } from './backend';
import { CLASSES, LEVELS, tilesOf, usualTiles } from './tiles';
import type { Level } from './tiles';
import { withTrial } from './try-tile';

const driver = useHalfFloatDriver();
if (driver) await useBackend('webgpu');
const has = (level: Level) => driver && tilesOf((backend() as GpuBackend).adapter, level).length > 0;

const bytesOf = (array: Float32Array | Uint16Array) => new Uint8Array(array.buffer.slice(0));

/** The nearest bfloat16 number. */
function rounded(values: Float32Array): Float32Array {
  const bits = new Uint32Array(values.slice().buffer);
  for (let i = 0; i < bits.length; i++) bits[i] = (bits[i] + 0x7fff + ((bits[i] >>> 16) & 1)) & 0xffff0000;
  return new Float32Array(bits.buffer);
}

/** Rows whose sizes differ by 10¹², with one number of each 300 times as large as the others. */
function hardRows(rows: number, columns: number, seed: number): Float32Array {
  const values = nn.normal(nn.rngKey(seed), rows * columns).slice();
  return values.map((value, i) => {
    const [row, column] = [Math.floor(i / columns), i % columns];
    return value * 10 ** ((row % 13) - 9) * (column === row % columns ? 300 : 1);
  });
}

const [N, K] = [70, 132];
const weight = rounded(hardRows(N, K, 1).map((v) => Math.sign(v) * Math.abs(v) ** 0.1)); // rows of 0.1 to 2
const b = nn.normal(nn.rngKey(2), N).slice();

/** y and the gradient of x of every kind of layer, [M, K] with gradients [M, N]. */
function results(w: Tensor2D, x: Float32Array, dy: Float32Array): Tensor[] {
  const M = x.length / K;
  const [input, slope] = [nn.tensor(x, [M, K]), nn.tensor(dy, [M, N])];
  const [bias, residual] = [nn.tensor<Tensor1D>(b, [N]), nn.tensor(dy, [M, N])];
  const layers = [
    (given: Tensor) => nn.linear({ weight: w }, given),
    (given: Tensor) => nn.activatedLinear('gelu', { weight: w, bias }, given),
    (given: Tensor) => nn.residualLinear({ weight: w, bias }, given, residual),
  ];
  return layers.flatMap((layer) => {
    const f = () => nn.sum(nn.mul(layer(input), slope)) as nn.Scalar;
    return [layer(input), ...nn.valueAndGrads(f, [input]).grads];
  });
}

async function computed(f: () => Tensor[]): Promise<Float32Array[]> {
  const made = nn.tidy(f);
  const values = await Promise.all(made.map(async (x) => (await x.data()) as Float32Array));
  nn.dispose(made);
  return values;
}

/** The largest difference in a row, relative to the row's largest number. */
function worst(found: Float32Array, expected: Float32Array, rows: number): number {
  const columns = expected.length / rows;
  return Math.max(
    ...Array.from({ length: rows }, (_, row) => {
      const part = expected.subarray(row * columns, (row + 1) * columns);
      const size = Math.max(...part.map(Math.abs));
      return Math.max(...part.map((v, i) => Math.abs(v - found[row * columns + i]))) / size;
    }),
  );
}

describe.each(LEVELS.filter(has))('bfloat16 by %s', { timeout: 300_000 }, (level) => {
  const gpu = () => backend() as GpuBackend;
  let before: GpuBackend['tiles'];
  beforeEach(async () => {
    await useBackend('webgpu', { precision: 'bfloat16' });
    before = gpu().tiles;
    const small = (one: Level) => CLASSES.map(() => usualTiles(gpu().adapter, one)[0]!);
    gpu().tiles = { float32: small('float32'), bfloat16: small(level) }; // others are compiled for many seconds
  });
  afterEach(() => void (gpu().tiles = before));

  it.each([9, 20, 70])('has the numbers of rounded operands, %i rows', async (M) => {
    const [x, dy] = [hardRows(M, K, 3), hardRows(M, N, 4)];
    const found = await computed(() => results(nn.tensor<Tensor2D>(weight, [N, K]), x, dy));
    await useBackend('webgpu', { precision: 'float32' });
    const exact = await computed(() => results(nn.tensor<Tensor2D>(weight, [N, K]), rounded(x), dy));
    found.forEach((values, i) => {
      // the gradient of a layer without activation is that of rounded dy, and gelu's slope is taken in float32
      if (i % 2 === 0) expect(worst(values, exact[i], M), `result ${i}`).toBeLessThan(3e-6);
    });
    const slopes = await computed(() => results(nn.tensor<Tensor2D>(weight, [N, K]), x, rounded(dy)));
    for (const i of [1, 5]) expect(worst(found[i], slopes[i], M), `gradient ${i}`).toBeLessThan(3e-6);
  });

  it('reads stored weights, and frees what it kept of them', async () => {
    const M = 33;
    const [x, dy] = [hardRows(M, K, 3), hardRows(M, N, 4)];
    const high = Uint16Array.from(new Uint32Array(weight.buffer.slice(0)), (bits) => bits >>> 16);
    const stored: StoredWeight[] = [
      { shape: [N, K], data: { bytes: bytesOf(high) }, encoding: { kind: 'BF16' } },
      { shape: [N, K], data: { bytes: bytesOf(weight) }, encoding: { kind: 'F32' } },
    ];
    const expected = await computed(() => results(nn.tensor<Tensor2D>(weight, [N, K]), x, dy));
    for (const one of stored) {
      const memory = nn.memory();
      const w = nn.storedTensor(one, 1) as Tensor2D;
      const found = await computed(() => results(w, x, dy));
      found.forEach((values, i) => expect(worst(values, expected[i], M), `result ${i}`).toBeLessThan(3e-6));
      nn.dispose(w);
      expect(nn.memory()).toEqual(memory);
    }
  });

  it('keeps NaN and infinity in their rows', async () => {
    const M = 9;
    const x = hardRows(M, K, 3);
    [x[5 * K + 2], x[7 * K + 3]] = [NaN, Infinity];
    const y = nn.tidy(() => nn.linear({ weight: nn.tensor<Tensor2D>(weight, [N, K]) }, nn.tensor(x, [M, K])));
    const values = (await y.data()) as Float32Array;
    nn.dispose(y);
    const finite = Array.from({ length: M }, (_, m) =>
      values.subarray(m * N, m * N + N).every(Number.isFinite),
    );
    expect(finite).toEqual([true, true, true, true, true, false, true, false, true]);
  });

  it('has the same numbers in every tile', async () => {
    const { adapter } = gpu();
    const { matrixShape, software } = adapter;
    const all = tilesOf(adapter, level);
    const varies =
      matrixShape && tilesOf({ ...adapter, matrixShape: { ...matrixShape, varies: true } }, level);
    // a processor compiles the others for minutes
    const few = software && level !== 'float32' ? all.slice(0, 1) : all;
    const tiles = [...few, ...(level === 'matrices' ? varies!.slice(0, 1) : [])];
    const reference = usualTiles(adapter, 'float32')[0]!;
    const wrong: string[] = [];
    await withTrial(gpu(), async ({ agrees }) => {
      for (const tile of tiles) if (!(await agrees(tile, reference))) wrong.push(tile.name);
    });
    expect(wrong).toEqual([]);
  });

  it('is timed by a clock, and frees what that took', async () => {
    const memory = nn.memory();
    let now = 0;
    const [tile] = usualTiles(gpu().adapter, level);
    const seconds = await withTrial(
      gpu(),
      (trial) => trial.seconds(tile!, 12, level !== 'float32'),
      () => (now += 40),
    );
    expect(seconds).toBe(0.04 / 4); // four products between two readings
    expect(nn.memory()).toEqual(memory);
  });

  for (const { name, run } of conformanceChecks(0.02)) it(`conformance: ${name}`, run);
});

for (const level of LEVELS.filter((one) => !has(one))) it.skip(`bfloat16 by ${level}`, () => {});

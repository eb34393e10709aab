/** Tries tiles on a device: whether they give the numbers of float32 arithmetic, and how long they take. */
import type { TensorInfo } from '@tensorflow/tfjs-core';
import type { GpuBackend } from './backend';
import { runTiles } from './kernels/matmul';
import type { Product } from './kernels/matmul';
import type { Tile } from './tiles';

/** Largest difference, relative to the largest number of a row. Sums in another order differ by 1e-6, wrong ones by much more than this. */
const TOLERANCE = 1e-4;

/** Sizes that are no multiples of a tile's, and fill several. */
const [M, N, K] = [133, 130, 200];

function uploaded(backend: GpuBackend, values: Float32Array, shape: number[]): TensorInfo {
  return { dataId: backend.write(values, shape, 'float32'), shape, dtype: 'float32' };
}

/** Rows of very different sizes, each with one number that is 300 times the others: hard cases for 16-bit floats. */
function rowsOf(rows: number, columns: number, seed: number): Float32Array {
  let state = seed;
  return Float32Array.from({ length: rows * columns }, (_, i) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const [row, column] = [Math.floor(i / columns), i % columns];
    const size = 10 ** ((row % 9) - 6) * (column === row % columns ? 300 : 1);
    return (state / 2 ** 31 - 1) * size;
  });
}

/** c of a product with operands rounded to bfloat16, read back. */
async function numbersOf(backend: GpuBackend, p: Product, tile: Tile): Promise<Float32Array> {
  const c = backend.allocate([p.M, p.N]);
  runTiles(backend, p, c, { round: true, tile });
  const values = (await backend.read(c.dataId)) as Float32Array;
  backend.release(c);
  return values;
}

function differs(found: Float32Array, expected: Float32Array, columns: number): boolean {
  for (let row = 0; row < expected.length; row += columns) {
    const values = expected.subarray(row, row + columns);
    const allowed = TOLERANCE * values.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
    if (values.some((v, i) => !(Math.abs(v - found[row + i]!) <= allowed))) return true;
  }
  return false;
}

async function agrees(backend: GpuBackend, tile: Tile, reference: Tile): Promise<boolean> {
  const [x, w] = [rowsOf(M, K, 1), rowsOf(N, K, 2)];
  const [a, b, dy] = [
    uploaded(backend, x, [M, K]),
    uploaded(backend, w, [N, K]),
    uploaded(backend, rowsOf(M, N, 3), [M, N]),
  ];
  const products: Product[] = [
    { M, N, K, a, b, turnedB: true },
    { M, N: K, K: N, a: dy, b, turnedB: false },
  ];
  const { device } = backend;
  for (const kind of ['validation', 'internal'] as const) device.pushErrorScope(kind);
  let right = true;
  try {
    for (const p of products) {
      const found = await numbersOf(backend, p, tile);
      right &&= !differs(found, await numbersOf(backend, p, reference), p.N);
    }
  } finally {
    const errors = [await device.popErrorScope(), await device.popErrorScope()];
    if (errors.some((error) => error !== null)) right = false;
    backend.release(a, b, dy);
  }
  return right;
}

/** Of the products that are timed: the width of a layer of blip2-opt-2.7b. */
export const WIDTH = 2560;

/** Least seconds of a measurement, and most products of one. */
const [LEAST, MOST] = [0.02, 1024];

/** What can be found out of a tile. */
export interface Trial {
  /** Whether it has the numbers of `reference`, in both directions of the weight; false if the driver refuses its shader. */
  agrees(tile: Tile, reference: Tile): Promise<boolean>;
  /** Seconds of a product of `rows` rows, with operands rounded to bfloat16 or not. */
  seconds(tile: Tile, rows: number, round: boolean): Promise<number>;
}

/** Calls `work` with trials on this device. @param clock in milliseconds */
export async function withTrial<T>(
  backend: GpuBackend,
  work: (trial: Trial) => Promise<T>,
  clock = () => performance.now(),
): Promise<T> {
  let weight: TensorInfo | undefined;
  try {
    return await work({
      agrees: (tile, reference) => agrees(backend, tile, reference),
      seconds: (tile, rows, round) => {
        weight ??= timedWeight(backend);
        return secondsOf(backend, { tile, rows, round, weight }, clock);
      },
    });
  } finally {
    if (weight) backend.release(weight);
  }
}

/** In bfloat16, as checkpoints have it. */
function timedWeight(backend: GpuBackend): TensorInfo {
  const bits = Uint16Array.from({ length: WIDTH * WIDTH }, (_, i) => 0x3c00 | ((i * 40503) & 0x80ff));
  const data = { bytes: new Uint8Array(bits.buffer) };
  return backend.store({ shape: [WIDTH, WIDTH], data, encoding: { kind: 'BF16' } }, 1)!;
}

interface Timed {
  tile: Tile;
  rows: number;
  round: boolean;
  weight: TensorInfo;
}

/** Of so many products that the clock is exact, after one that compiles the shader. */
async function secondsOf(
  backend: GpuBackend,
  { tile, rows, round, weight }: Timed,
  clock: () => number,
): Promise<number> {
  const a = uploaded(backend, rowsOf(rows, WIDTH, 1), [rows, WIDTH]);
  const c = backend.allocate([rows, WIDTH]);
  const p: Product = { M: rows, N: WIDTH, K: WIDTH, a, b: weight, turnedB: true };
  const run = async (count: number) => {
    for (let i = 0; i < count; i++) runTiles(backend, p, c, { round, tile });
    backend.flush();
    await backend.device.queue.onSubmittedWorkDone();
  };
  await run(1);
  let taken = 0;
  let count = 1;
  for (; taken < LEAST && count < MOST; count *= 4) {
    const begin = clock();
    await run(4 * count);
    taken = (clock() - begin) / 1000;
  }
  backend.release(a, c);
  return taken / count;
}

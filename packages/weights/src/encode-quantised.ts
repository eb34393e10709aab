/** Writes matrices as bitsandbytes quantises them, under the names that transformers reads. */
import type { DType } from './dtype';
import type { TensorToWrite } from './encode';

/** Numbers of a matrix [rows, columns], read when they are written. */
export interface Matrix {
  readonly name: string;
  readonly shape: readonly [rows: number, columns: number];
  readonly read: () => Promise<Float32Array>;
}

/** `Linear8bitLt`: `P.weight`, and beside it `P.SCB`, the largest magnitude of each row. @param name ends with `.weight` */
export function int8Tensors({ name, shape: [rows, columns], read }: Matrix): TensorToWrite[] {
  const part = (suffix: string) => name.replace(/weight$/, suffix);
  const largest = async () => largestOf(await read(), columns);
  return [
    { name, dtype: 'I8', shape: [rows, columns], data: async () => encodeInt8(await read(), columns) },
    { name: part('SCB'), dtype: 'F32', shape: [rows], data: largest },
    { name: part('weight_format'), dtype: 'U8', shape: [], data: new Uint8Array(1) },
  ];
}

/** nf4 in blocks of 64 without double quantisation. @param dtype that bitsandbytes dequantises to */
export function nf4Tensors({ name, shape: [rows, columns], read }: Matrix, dtype: DType): TensorToWrite[] {
  const count = rows * columns;
  const json = {
    quant_type: 'nf4',
    blocksize: BLOCK,
    dtype: TORCH[dtype] ?? 'float32',
    shape: [rows, columns],
  };
  const state = new TextEncoder().encode(JSON.stringify(json));
  const absmax = [Math.ceil(count / BLOCK)];
  return [
    { name, dtype: 'U8', shape: [Math.ceil(count / 2), 1], data: async () => encodeNf4(await read()) },
    { name: `${name}.absmax`, dtype: 'F32', shape: absmax, data: async () => largestOf(await read(), BLOCK) },
    { name: `${name}.quant_map`, dtype: 'F32', shape: [16], data: NF4 },
    { name: `${name}.quant_state.bitsandbytes__nf4`, dtype: 'U8', shape: [state.length], data: state },
  ];
}

const TORCH: Partial<Record<DType, string>> = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' };
const BLOCK = 64;

/** Quantiles of the normal distribution (QLoRA, Dettmers et al. 2023; bitsandbytes, `get_4bit_type`). */
const NF4 = Float32Array.of(
  ...[-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635],
  ...[-0.18477343022823334, -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725],
  ...[
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
  ],
);
const BETWEEN = NF4.subarray(1).map((level, i) => (level + NF4[i]!) / 2);

/** The nearest whole number, ties to even: a double of this size has no fraction. */
const LARGE = 6755399441055744;
const nearest = (x: number) => x + LARGE - LARGE;

/** The largest magnitude of each `length` numbers; NaN where one is NaN. */
function largestOf(w: Float32Array, length: number): Float32Array {
  const largest = new Float32Array(Math.ceil(w.length / length));
  for (let b = 0; b < largest.length; b++) {
    let most = 0;
    for (let i = b * length; i < Math.min(w.length, (b + 1) * length); i++)
      most = Math.max(most, Math.abs(w[i]!));
    largest[b] = most;
  }
  return largest;
}

/** q = 127 · w / largest magnitude of its row; 0 in a row of zeros, or with NaN or infinity. */
function encodeInt8(w: Float32Array, columns: number): Uint8Array {
  const q = new Int8Array(w.length);
  largestOf(w, columns).forEach((most, n) => {
    const inverse = Math.fround(127 / most);
    if (Number.isFinite(inverse) && inverse > 0)
      for (let i = n * columns; i < (n + 1) * columns; i++) q[i] = nearest(Math.fround(w[i]! * inverse));
  });
  return new Uint8Array(q.buffer);
}

function encodeNf4(w: Float32Array): Uint8Array {
  const codes = new Uint8Array(Math.ceil(w.length / 2));
  largestOf(w, BLOCK).forEach((most, b) => {
    for (let i = b * BLOCK; i < Math.min(w.length, (b + 1) * BLOCK); i++)
      codes[i >> 1]! |= codeOf(most > 0 ? w[i]! / most : 0) << (i % 2 === 0 ? 4 : 0);
  });
  return codes;
}

/** The nearest level. */
function codeOf(x: number): number {
  let code = x > BETWEEN[7]! ? 8 : 0;
  for (let step = 4; step > 0; step >>= 1) if (x > BETWEEN[code + step - 1]!) code += step;
  return code;
}

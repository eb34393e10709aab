/**
 * Rounding of weights to 8 and 4 bits in plain JavaScript, for machines without the C++ addon. It gives the bytes that gemm_int8.cc and
 * quantise_int4.cc of backend-native give: each step is rounded to float32 as there.
 */
import { rowReader } from './encoded-rows';
import type { ReadFile, StoredWeight } from './stored';

/** Rows of a panel. */
const SIDE = 32;
/** Columns with one step, in 4 bits. */
const GROUP = 64;
/** Added and subtracted again, it rounds a small number to the nearest whole one, ties to even. */
const WHOLE = 1.5 * 2 ** 52;
/** Numbers are compared in so many parts of 1/120 of the largest one of their row. */
const PARTS = 64;
const MOST_STEP = 16;

/**
 * The INT8 or INT4 encoding of a weight in another one, in memory: what `quantised` is of a backend without code of its own.
 * @param factors one per column, above 0
 * @throws Error for a weight that is in one of them already, and for a file without a function that reads it
 */
export function roundWeight(
  weight: StoredWeight,
  factors: Float32Array,
  bits: 8 | 4,
  readFile?: ReadFile,
): StoredWeight {
  const { shape } = weight;
  const [rows, columns] = shape;
  const read = rowReader(weight, readFile);
  const inverse = factors.map((factor) => 1 / factor);
  const scales = new Float32Array(rows);
  const panel = bits === 8 ? int8Panel(rows, columns) : int4Panel(rows, columns);
  for (let row = 0; row < rows; row += SIDE) {
    const count = Math.min(SIDE, rows - row);
    const values = read(row, count);
    for (let n = 0; n < count; n++) {
      const scaled = values.subarray(n * columns, (n + 1) * columns);
      for (let k = 0; k < columns; k++) scaled[k]! *= inverse[k]!;
      const { scale, inverse: by } = rowScale(scaled, bits === 8 ? 127 : 7.5 * MOST_STEP);
      scales[row + n] = scale;
      if (by > 0) panel.write(scaled, by, row / SIDE, n);
    }
  }
  const floats = { scales: spanOf(scales), factors: spanOf(factors.slice()) };
  return {
    shape,
    data: { bytes: panel.data },
    encoding: panel.steps
      ? { kind: 'INT4', steps: { bytes: panel.steps }, ...floats }
      : { kind: 'INT8', ...floats },
    rounded: true,
  };
}

const spanOf = ({ buffer }: Float32Array) => ({ bytes: new Uint8Array(buffer) });

/** The largest of the numbers becomes `top`. A row that is not finite gets the scale NaN, one of tiny numbers 0; both become zeros. */
function rowScale(values: Float32Array, top: number): { scale: number; inverse: number } {
  let most = 0;
  for (let k = 0; k < values.length; k++) {
    const magnitude = Math.abs(values[k]!);
    if (!(magnitude < Infinity)) return { scale: NaN, inverse: 0 };
    if (magnitude > most) most = magnitude;
  }
  if (most < 2 ** -100) return { scale: 0, inverse: 0 };
  return { scale: most / top, inverse: Math.fround(top / most) };
}

/** The codes of a weight, zeros at first. `write` makes those of row n of panel p, from its numbers and the factor that makes them codes. */
interface Panel {
  data: Uint8Array;
  steps?: Uint8Array;
  write(values: Float32Array, inverse: number, p: number, n: number): void;
}

/** Bytes q + 128 in blocks of 32 by 32: [8 groups of columns][32 rows][4 columns]. */
function int8Panel(rows: number, columns: number): Panel {
  const size = Math.ceil(columns / SIDE) * 1024;
  const data = new Uint8Array(Math.ceil(rows / SIDE) * size).fill(128);
  return {
    data,
    write(values, inverse, p, n) {
      const at = p * size + n * 4;
      for (let k = 0; k < columns; k++)
        data[at + (k >> 2) * 128 + (k & 3)] = Math.fround(values[k]! * inverse) + WHOLE - WHOLE + 128;
    },
  };
}

/** Codes q + 8 of 32 rows and 64 columns: [8 groups of columns][32 rows][4 bytes], columns 0 … 3 in the low halves, 4 … 7 in the high. */
function int4Panel(rows: number, columns: number): Panel {
  const groups = Math.ceil(columns / GROUP);
  const panels = Math.ceil(rows / SIDE) * groups;
  const data = new Uint8Array(panels * 1024).fill(0x88);
  const steps = new Uint8Array(panels * SIDE).fill(1);
  const v = new Int32Array(GROUP);
  return {
    data,
    steps,
    write(values, inverse, p, n) {
      const by = Math.fround(inverse * PARTS);
      for (let g = 0; g < groups; g++) {
        const count = Math.min(GROUP, columns - g * GROUP);
        v.fill(0);
        for (let k = 0; k < count; k++) v[k] = Math.fround(values[g * GROUP + k]! * by) + WHOLE - WHOLE;
        const step = stepOf(v);
        steps[(p * groups + g) * SIDE + n] = step;
        const { codes } = codesOf(step);
        const at = (p * groups + g) * 1024 + n * 4;
        for (let k = 0; k < GROUP; k += 8)
          for (let i = 0; i < 4; i++)
            data[at + k * 16 + i] =
              codes[v[k + i]! + MOST_PARTS]! | (codes[v[k + 4 + i]! + MOST_PARTS]! << 4);
      }
    },
  };
}

/** The largest magnitude of a number in parts. */
const MOST_PARTS = 7.5 * MOST_STEP * PARTS;

/** By the step, for each number of parts from -MOST_PARTS on: its code from 0 to 15, and the square of its error. */
const CODES: { codes: Uint8Array; squares: Int32Array }[] = [];

function codesOf(step: number) {
  return (CODES[step] ??= makeCodes(step));
}

function makeCodes(step: number) {
  const [codes, squares] = [new Uint8Array(2 * MOST_PARTS + 1), new Int32Array(2 * MOST_PARTS + 1)];
  const inverse = Math.fround(1 / (PARTS * step));
  for (let v = -MOST_PARTS; v <= MOST_PARTS; v++) {
    const code = Math.max(-8, Math.min(7, Math.fround(v * inverse) + WHOLE - WHOLE));
    codes[v + MOST_PARTS] = code + 8;
    squares[v + MOST_PARTS] = (v - code * PARTS * step) ** 2;
  }
  return { codes, squares };
}

/** The step from 1 to 16 with the least sum of squared errors of a group; of equal ones the smallest. See quantise_int4.cc. */
function stepOf(v: Int32Array): number {
  let largest = 0;
  for (let k = 0; k < GROUP; k++) largest = Math.max(largest, Math.abs(v[k]!));
  const last = Math.min(MOST_STEP, Math.ceil(largest / (7 * PARTS)));
  let [best, least] = [1, Infinity];
  for (let step = Math.max(1, Math.ceil(largest / (16 * PARTS))); step <= last; step++) {
    const { squares } = codesOf(step);
    let total = 0;
    for (let k = 0; k < GROUP; k++) total += squares[v[k]! + MOST_PARTS]!;
    if (total < least) [best, least] = [step, total];
  }
  return best;
}

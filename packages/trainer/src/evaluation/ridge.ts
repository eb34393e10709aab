/**
 * Ridge regression in its kernel form, for more features than rows. Solving is one blocked Cholesky
 * elimination whose large matmuls run on the backend, so a strength costs well under a second at 2,520 rows.
 * Reference: Saunders, Gammerman, Vovk 1998; Golub & Van Loan 4.2.9 (block Cholesky).
 */
import { dispose, inFloat32, linear, tensor, tidy } from '@blip2/nn';
import type { Tensor2D } from '@blip2/nn';

/** A row-major matrix. */
export interface Matrix {
  data: Float32Array;
  rows: number;
  cols: number;
}

const BLOCK = 64;

/** A·Bᵀ, [a.rows, b.rows], on the backend in float32. */
export async function timesTransposed(a: Matrix, b: Matrix): Promise<Matrix> {
  const x = tensor(a.data, [a.rows, a.cols]);
  const weight = tensor<Tensor2D>(b.data, [b.rows, b.cols]);
  const product = tidy(() => inFloat32(() => linear({ weight }, x))); // rounding would weaken the probe
  const data = (await product.data()) as Float32Array;
  dispose([x, weight, product]);
  return { data, rows: a.rows, cols: b.rows };
}

/**
 * Predictions [q.rows, y.cols] = Kq (K + strength·I)⁻¹ Y.
 * With K + strength·I = L Lᵀ this is (Kq L⁻ᵀ)(Yᵀ L⁻ᵀ)ᵀ, and both factors come out of the same elimination when
 * the rows of Yᵀ and Kq are written below K: no substitution passes are needed.
 * @param kernel K [n, n], kernel between training rows
 * @param queries Kq [m, n], kernel between queries and training rows
 * @param targets Y [n, t]
 * @returns undefined when K + strength·I is not positive definite in float32
 */
export async function ridgePredict(
  kernel: Matrix,
  queries: Matrix,
  targets: Matrix,
  strength: number,
): Promise<Matrix | undefined> {
  const n = kernel.rows;
  const rows = n + targets.cols + queries.rows;
  const a = new Float32Array(rows * n);
  a.set(kernel.data);
  for (let i = 0; i < n; i++) a[i * n + i] += strength;
  for (let i = 0; i < n; i++)
    for (let t = 0; t < targets.cols; t++) a[(n + t) * n + i] = targets.data[i * targets.cols + t];
  a.set(queries.data, (n + targets.cols) * n);

  for (let from = 0; from < n; from += BLOCK) {
    const to = Math.min(n, from + BLOCK);
    if (!factorPanel(a, n, rows, from, to)) return undefined;
    if (to < n) await updateTrailing(a, n, rows, from, to);
  }
  const z = { data: a.subarray(n * n, (n + targets.cols) * n), rows: targets.cols, cols: n };
  const w = { data: a.subarray((n + targets.cols) * n), rows: queries.rows, cols: n };
  return timesTransposed(w, z);
}

/** Columns from..to of the factor, in place, for all rows below; false at a pivot that is not positive. */
function factorPanel(a: Float32Array, n: number, rows: number, from: number, to: number): boolean {
  for (let i = from; i < rows; i++) {
    const row = i * n;
    for (let j = from; j < Math.min(to, i + 1); j++) {
      const other = j * n;
      let rest = a[row + j];
      for (let k = from; k < j; k++) rest -= a[row + k] * a[other + k];
      if (i !== j) a[row + j] = rest / a[other + j];
      else if (rest > 0) a[row + j] = Math.sqrt(rest);
      else return false;
    }
  }
  return true;
}

/** Subtracts what the panel explains from the columns to its right. */
async function updateTrailing(
  a: Float32Array,
  n: number,
  rows: number,
  from: number,
  to: number,
): Promise<void> {
  const panel = columns(a, n, to, rows, from, to);
  const top = { ...panel, data: panel.data.subarray(0, (n - to) * panel.cols), rows: n - to };
  const { data } = await timesTransposed(panel, top);
  const width = n - to;
  for (let i = to; i < rows; i++) {
    const end = Math.min(width, i - to + 1);
    for (let j = 0; j < end; j++) a[i * n + to + j] -= data[(i - to) * width + j];
  }
}

function columns(a: Float32Array, n: number, top: number, end: number, from: number, to: number): Matrix {
  const cols = to - from;
  const data = new Float32Array((end - top) * cols);
  for (let i = top; i < end; i++) data.set(a.subarray(i * n + from, i * n + to), (i - top) * cols);
  return { data, rows: end - top, cols };
}

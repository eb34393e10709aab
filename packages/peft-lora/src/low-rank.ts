/** Truncated singular value decomposition of B·A for thin A and B, in double precision. */
import type { HostTensor } from './adapter';

/**
 * The best approximation of rank `rank` to B·A, as factors: A' [rank, in] with orthonormal rows, B' [out, rank] = U·S.
 * Rows and columns beyond the rank of B·A are zero.
 */
export function truncated(A: HostTensor, B: HostTensor, rank: number): { A: HostTensor; B: HostTensor } {
  const [R, width] = A.shape as [number, number];
  const out = B.shape[0]!;
  const { q, r } = orthonormal(Array.from({ length: R }, (_, k) => row(A, k)));
  // B·A = (B·L)·Q with A = L·Q, L lower triangular; M = B·L has only R columns.
  const columns = Array.from({ length: R }, (_, k) =>
    Float64Array.from({ length: out }, (_, i) => {
      let sum = 0;
      for (let j = k; j < R; j++) sum += B.data[i * R + j]! * r[j]![k]!;
      return sum;
    }),
  );
  const rotation = orthogonalize(columns); // M·V has orthogonal columns U·S
  const order = columns.map((c, k) => ({ k, size: norm(c) })).sort((a, b) => b.size - a.size);
  const newA = new Float32Array(rank * width);
  const newB = new Float32Array(out * rank);
  for (const [to, { k, size }] of order.slice(0, rank).entries()) {
    if (size === 0) break;
    for (let i = 0; i < out; i++) newB[i * rank + to] = columns[k]![i]!;
    for (let j = 0; j < width; j++)
      newA[to * width + j] = q.reduce((sum, direction, l) => sum + rotation[l]![k]! * direction[j]!, 0);
  }
  return { A: { shape: [rank, width], data: newA }, B: { shape: [out, rank], data: newB } };
}

function row({ shape, data }: HostTensor, k: number): Float64Array {
  return Float64Array.from(data.subarray(k * shape[1]!, (k + 1) * shape[1]!));
}

const dot = (a: Float64Array, b: Float64Array) => a.reduce((sum, x, i) => sum + x * b[i]!, 0);
const norm = (a: Float64Array) => Math.sqrt(dot(a, a));

/** Gram–Schmidt, twice: rows = r·q, r lower triangular; a row dependent on earlier ones gets a zero direction. */
function orthonormal(rows: Float64Array[]): { q: Float64Array[]; r: number[][] } {
  const q: Float64Array[] = [];
  const r = rows.map((original, i) => {
    const rest = original.slice();
    const coefficients = rows.map(() => 0);
    for (let pass = 0; pass < 2; pass++) {
      for (const [j, direction] of q.entries()) {
        const along = dot(rest, direction);
        coefficients[j]! += along;
        direction.forEach((x, c) => (rest[c]! -= along * x));
      }
    }
    const length = norm(rest);
    const isNew = length > 1e-12 * norm(original);
    coefficients[i] = isNew ? length : 0;
    q.push(isNew ? rest.map((x) => x / length) : rest.fill(0));
    return coefficients;
  });
  return { q, r };
}

const SWEEPS = 40;

/** One-sided Jacobi (Hestenes 1958): rotates pairs of columns in place until all are orthogonal; returns the rotation. */
function orthogonalize(columns: Float64Array[]): Float64Array[] {
  // columns of the rotation, at first the identity; transposed at the end
  const rotation = columns.map((_, i) => Float64Array.from(columns, (_, j) => Number(i === j)));
  for (let sweep = 0, isDone = false; sweep < SWEEPS && !isDone; sweep++) {
    isDone = true;
    for (let a = 0; a < columns.length; a++) {
      for (let b = a + 1; b < columns.length; b++) {
        const t = tangent(columns[a]!, columns[b]!);
        if (t === 0) continue;
        isDone = false;
        rotate(columns[a]!, columns[b]!, t);
        rotate(rotation[a]!, rotation[b]!, t);
      }
    }
  }
  return rotation.map((_, i) => Float64Array.from(rotation, (column) => column[i]!));
}

/** Tangent of the rotation angle that makes x and y orthogonal; 0 if they already are. */
function tangent(x: Float64Array, y: Float64Array): number {
  const [xx, yy, xy] = [dot(x, x), dot(y, y), dot(x, y)];
  if (Math.abs(xy) <= 1e-15 * Math.sqrt(xx * yy)) return 0;
  const zeta = (yy - xx) / (2 * xy);
  return (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.hypot(1, zeta));
}

function rotate(x: Float64Array, y: Float64Array, t: number): void {
  const c = 1 / Math.hypot(1, t);
  for (let i = 0; i < x.length; i++) {
    const [p, q] = [x[i]!, y[i]!];
    x[i] = c * (p - t * q);
    y[i] = c * (q + t * p);
  }
}

/** Cross-entropy of logits, and of a linear layer whose logits are never in memory together. */
import type { KernelInputs } from '@blip2/nn';
import type { TensorInfo } from '@tensorflow/tfjs-core';
import type { GpuBackend } from '../backend';
import type { KernelsOf } from '../kernel';
import { f32, lineOf } from '../program';
import exact from '../wgsl/exact';
import loss0 from '../wgsl/loss';
import mean0 from '../wgsl/loss-mean';
import totals from '../wgsl/totals';
import { product } from './matmul';

const [lossCode, meanCode] = [exact + totals + loss0, exact + totals + mean0];

/** Columns of the logits that are computed at a time. */
const PIECE = 4096;

/** Columns first … first + C − 1 of the logits, or of their gradient. */
interface Piece {
  logits: TensorInfo;
  first: number;
  C: number;
}

/** Calls f with the logits x·weightᵀ, piece by piece. */
function eachPiece(
  backend: GpuBackend,
  { x, weight }: { x: TensorInfo; weight: TensorInfo },
  f: (piece: Piece) => void,
): void {
  const [[M, K], V] = [x.shape as [number, number], weight.shape[0]!];
  for (let first = 0; first < V; first += PIECE) {
    const C = Math.min(PIECE, V - first);
    const p = { M, N: C, K, a: x, b: weight, turnedB: true, firstRow: first };
    const logits = product(backend, p, [M, C]);
    f({ logits, first, C });
    backend.release(logits);
  }
}

interface Sums {
  labels: TensorInfo;
  /** Of each row, as in loss.ts of the shaders. */
  sums: TensorInfo;
  V: number;
}

function addPiece(backend: GpuBackend, { logits, first, C }: Piece, { labels, sums, V }: Sums): void {
  const M = labels.shape[0]!;
  const program = { name: 'loss', code: lossCode, constants: { OP: 0 } };
  const bound = [logits, labels, undefined, undefined, sums, undefined];
  backend.run(program, lineOf(M), bound, [M, C, V, first, f32(0)]);
}

/** The mean loss and lse from the sums, which are freed. */
function finish(backend: GpuBackend, { labels, sums, V }: Sums, smoothing: number): [TensorInfo, TensorInfo] {
  const M = labels.shape[0]!;
  const [loss, lse] = [backend.allocate([]), backend.allocate([M])];
  const program = { name: 'loss-mean', code: meanCode, constants: { OP: 0 } };
  backend.run(program, [1], [sums, labels, undefined, lse, loss], [M, V, f32(smoothing)]);
  backend.release(sums);
  return [loss, lse];
}

interface Slope {
  labels: TensorInfo;
  lse: TensorInfo;
  dloss: TensorInfo;
}

/** dloss divided by the number of rows with a label. */
function factorOf(backend: GpuBackend, { labels, dloss }: Slope): TensorInfo {
  const M = labels.shape[0]!;
  const factor = backend.allocate([]);
  const program = { name: 'loss-mean', code: meanCode, constants: { OP: 1 } };
  backend.run(program, [1], [undefined, labels, dloss, undefined, factor], [M, 1, f32(0)]);
  return factor;
}

function pieceGrad(
  backend: GpuBackend,
  { logits, first, C }: Piece,
  { labels, lse, factor, V }: Slope & { factor: TensorInfo; V: number },
  smoothing: number,
): TensorInfo {
  const M = labels.shape[0]!;
  const dlogits = backend.allocate([M, C]);
  const program = { name: 'loss', code: lossCode, constants: { OP: 1 } };
  const bound = [logits, labels, lse, factor, undefined, dlogits];
  backend.run(program, lineOf(Math.ceil((M * C) / 64)), bound, [M, C, V, first, f32(smoothing)]);
  return dlogits;
}

/** Calls f with the gradient of the logits, piece by piece. */
function eachGrad(
  backend: GpuBackend,
  inputs: KernelInputs<'NnLinearCrossEntropyGradInput', TensorInfo>,
  smoothing: number,
  f: (piece: Piece) => void,
): void {
  const slope = { ...inputs, factor: factorOf(backend, inputs), V: inputs.weight.shape[0]! };
  eachPiece(backend, inputs, (piece) => {
    const dlogits = pieceGrad(backend, piece, slope, smoothing);
    f({ ...piece, logits: dlogits });
    backend.release(dlogits);
  });
  backend.release(slope.factor);
}

export const loss: KernelsOf<
  | 'NnCrossEntropy'
  | 'NnCrossEntropyGrad'
  | 'NnLinearCrossEntropy'
  | 'NnLinearCrossEntropyGradInput'
  | 'NnLinearCrossEntropyGradWeight'
> = {
  NnCrossEntropy({ logits, labels }, { labelSmoothing }, backend) {
    const [M, V] = logits.shape as [number, number];
    const sums = { labels, sums: backend.allocate([M, 4]), V };
    addPiece(backend, { logits, first: 0, C: V }, sums);
    return finish(backend, sums, labelSmoothing);
  },

  NnCrossEntropyGrad({ logits, ...given }, { labelSmoothing }, backend) {
    const V = logits.shape[1]!;
    const slope = { ...given, factor: factorOf(backend, given), V };
    const dlogits = pieceGrad(backend, { logits, first: 0, C: V }, slope, labelSmoothing);
    backend.release(slope.factor);
    return dlogits;
  },

  NnLinearCrossEntropy({ x, weight, labels }, { labelSmoothing }, backend) {
    const sums = { labels, sums: backend.allocate([x.shape[0]!, 4]), V: weight.shape[0]! };
    eachPiece(backend, { x, weight }, (piece) => addPiece(backend, piece, sums));
    return finish(backend, sums, labelSmoothing);
  },

  NnLinearCrossEntropyGradInput(inputs, { labelSmoothing }, backend) {
    const { x, weight } = inputs;
    const [M, N] = x.shape as [number, number];
    const c = backend.allocate([M, N]);
    eachGrad(backend, inputs, labelSmoothing, ({ logits, first, C }) => {
      const into = { c, at: 0, adds: first > 0 };
      product(backend, { M, N, K: C, a: logits, b: weight, turnedB: false, firstRow: first, into }, []);
    });
    return c;
  },

  NnLinearCrossEntropyGradWeight(inputs, { labelSmoothing }, backend) {
    const { x, weight } = inputs;
    const [K, N] = x.shape as [number, number];
    const c = backend.allocate(weight.shape);
    eachGrad(backend, inputs, labelSmoothing, ({ logits, first, C }) => {
      const into = { c, at: first * N, adds: false };
      product(backend, { M: C, N, K, a: logits, turnedA: true, b: x, turnedB: false, into }, []);
    });
    return c;
  },
};

/** Layer norm and RMSNorm, and sums of columns. */
import type { TensorInfo } from '@tensorflow/tfjs-core';
import type { GpuBackend } from '../backend';
import type { KernelsOf } from '../kernel';
import { sizeOf } from '../kernel';
import { f32, lineOf } from '../program';
import columnSumsCode from '../wgsl/column-sums';
import normCode from '../wgsl/norm';
import totals from '../wgsl/totals';

const code = totals + normCode;

const dims = ({ shape }: TensorInfo): [M: number, N: number] => [
  sizeOf(shape.slice(0, -1)),
  shape[shape.length - 1]!,
];

interface Given {
  x: TensorInfo;
  weight: TensorInfo;
  bias?: TensorInfo;
}

/** y, the mean if there is a bias, and rstd. */
function forward(backend: GpuBackend, { x, weight, bias }: Given, eps: number) {
  const [M, N] = dims(x);
  const [y, rstd] = [backend.allocate(x.shape), backend.allocate([M])];
  const mean = bias && backend.allocate([M]);
  const program = { name: 'norm', code, constants: { OP: 0, MEAN: bias !== undefined } };
  backend.run(program, lineOf(M), [x, weight, bias, undefined, y, mean, rstd], [M, N, f32(eps)]);
  return { y, mean, rstd };
}

interface Saved {
  dy: TensorInfo;
  x: TensorInfo;
  mean?: TensorInfo;
  rstd: TensorInfo;
}

function gradInput(backend: GpuBackend, saved: Saved & { weight: TensorInfo }): TensorInfo {
  const { dy, x, weight, mean, rstd } = saved;
  const [M, N] = dims(x);
  const dx = backend.allocate(x.shape);
  const program = { name: 'norm', code, constants: { OP: 1, MEAN: mean !== undefined } };
  backend.run(program, lineOf(M), [x, weight, undefined, dy, dx, mean, rstd], [M, N, f32(0)]);
  return dx;
}

/** Sums of the columns: of x (0), of dy·x·rstd (1), of dy·(x − mean)·rstd (2). */
export function columnSums(
  backend: GpuBackend,
  OF: 0 | 1 | 2,
  { x, dy, mean, rstd }: Partial<Saved> & { x: TensorInfo },
): TensorInfo {
  const [M, N] = dims(x);
  const y = backend.allocate([N]);
  const program = { name: 'column-sums', code: columnSumsCode, constants: { OF } };
  backend.run(program, [Math.ceil(N / 16)], [x, dy, mean, rstd, y], [M, N]);
  return y;
}

export const norm: KernelsOf<
  | 'NnLayerNorm'
  | 'NnLayerNormGradInput'
  | 'NnLayerNormGradWeight'
  | 'NnRmsNorm'
  | 'NnRmsNormGradInput'
  | 'NnRmsNormGradWeight'
> = {
  NnLayerNorm(inputs, { eps }, backend) {
    const { y, mean, rstd } = forward(backend, inputs, eps);
    return [y, mean!, rstd];
  },
  NnLayerNormGradInput: (inputs, _attrs, backend) => gradInput(backend, inputs),
  NnLayerNormGradWeight: (inputs, _attrs, backend) => columnSums(backend, 2, inputs),
  NnRmsNorm(inputs, { eps }, backend) {
    const { y, rstd } = forward(backend, inputs, eps);
    return [y, rstd];
  },
  NnRmsNormGradInput: (inputs, _attrs, backend) => gradInput(backend, inputs),
  NnRmsNormGradWeight: (inputs, _attrs, backend) => columnSums(backend, 1, inputs),
};

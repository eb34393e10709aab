/** Layer normalisation and RMSNorm. */
import * as tf from '@tensorflow/tfjs-core';
import type { Tensor, Tensor1D } from '@tensorflow/tfjs-core';
import { gradient, runKernel } from '../kernel-door';
import type { KernelSet } from '../kernel-door';
import type { KernelAttrs, KernelInputs, KernelOutputs } from '../kernels';
import { likeRows, rows } from './compose';

export interface LayerNorm {
  weight: Tensor1D; // [D]
  bias: Tensor1D; // [D]
}

export interface RmsNorm {
  weight: Tensor1D; // [D]
}

function checkWidth(op: string, { weight: { size } }: RmsNorm, x: Tensor): void {
  if (x.shape[x.rank - 1] !== size)
    throw new Error(`${op}: ${size} weights expect inputs of width ${size}, found [${x.shape}]`);
}

/** (x − mean)/√(var + eps)·weight + bias over the last axis (Ba et al. 2016). */
export function layerNorm<T extends Tensor>(p: LayerNorm, x: T, eps: number): T {
  checkWidth('layerNorm', p, x);
  return runKernel('NnLayerNorm', { x, weight: p.weight, bias: p.bias }, { eps })[0] as T;
}

/** x/√(mean(x²) + eps)·weight over the last axis (Zhang & Sennrich 2019; T5LayerNorm). */
export function rmsNorm<T extends Tensor>(p: RmsNorm, x: T, eps: number): T {
  checkWidth('rmsNorm', p, x);
  return runKernel('NnRmsNorm', { x, weight: p.weight }, { eps })[0] as T;
}

function composed(
  { x, weight, bias }: KernelInputs<'NnLayerNorm', Tensor>,
  { eps }: KernelAttrs<'NnLayerNorm'>,
): KernelOutputs<'NnLayerNorm', Tensor> {
  const mean = tf.mean(x, -1, true);
  const centred = tf.sub(x, mean);
  const rstd = tf.rsqrt(tf.add(tf.mean(tf.square(centred), -1, true), eps));
  const y = tf.add(tf.mul(tf.mul(centred, rstd), weight), bias);
  return [y, tf.reshape(mean, [-1]), tf.reshape(rstd, [-1])];
}

/** (x − mean)·rstd [M, N]. */
function normalized(x: Tensor, mean: Tensor, rstd: Tensor): Tensor {
  return tf.mul(tf.sub(rows(x), tf.expandDims(mean, 1)), tf.expandDims(rstd, 1));
}

function gradInput({ dy, x, weight, mean, rstd }: KernelInputs<'NnLayerNormGradInput', Tensor>): Tensor {
  const xhat = normalized(x, mean, rstd);
  const g = tf.mul(rows(dy), weight);
  const inner = tf.sub(tf.sub(g, tf.mean(g, 1, true)), tf.mul(xhat, tf.mean(tf.mul(g, xhat), 1, true)));
  return likeRows(tf.mul(inner, tf.expandDims(rstd, 1)), x);
}

function composedRms(
  { x, weight }: KernelInputs<'NnRmsNorm', Tensor>,
  { eps }: KernelAttrs<'NnRmsNorm'>,
): KernelOutputs<'NnRmsNorm', Tensor> {
  const rstd = tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), eps));
  return [tf.mul(tf.mul(x, rstd), weight), tf.reshape(rstd, [-1])];
}

function rmsGradInput({ dy, x, weight, rstd }: KernelInputs<'NnRmsNormGradInput', Tensor>): Tensor {
  const r = tf.expandDims(rstd, 1);
  const [xhat, g] = [tf.mul(rows(x), r), tf.mul(rows(dy), weight)];
  return likeRows(tf.mul(tf.sub(g, tf.mul(xhat, tf.mean(tf.mul(g, xhat), 1, true))), r), x);
}

export default {
  references: {
    NnRmsNorm: composedRms,
    NnRmsNormGradInput: rmsGradInput,
    NnRmsNormGradWeight: ({ dy, x, rstd }) =>
      tf.sum(tf.mul(rows(dy), tf.mul(rows(x), tf.expandDims(rstd, 1))), 0),
    NnLayerNorm: composed,
    NnLayerNormGradInput: gradInput,
    NnLayerNormGradWeight: ({ dy, x, mean, rstd }) => tf.sum(tf.mul(rows(dy), normalized(x, mean, rstd)), 0),
  },
  gradients: [
    gradient(
      'NnRmsNorm',
      { inputs: ['x', 'weight'], outputs: [false, true] },
      (dy, { x, weight }, [, rstd]) => ({
        x: () => runKernel('NnRmsNormGradInput', { dy, x, weight, rstd }, {}),
        weight: () => runKernel('NnRmsNormGradWeight', { dy, x, rstd }, {}),
      }),
    ),
    gradient(
      'NnLayerNorm',
      { inputs: ['x', 'weight'], outputs: [false, true, true] },
      (dy, { x, weight }, [, mean, rstd]) => ({
        x: () => runKernel('NnLayerNormGradInput', { dy, x, weight, mean, rstd }, {}),
        weight: () => runKernel('NnLayerNormGradWeight', { dy, x, mean, rstd }, {}),
        bias: () => runKernel('NnSumRows', { x: dy }, {}),
      }),
    ),
  ],
} satisfies KernelSet;

/** Layer normalisation. */
import * as tf from '@tensorflow/tfjs-core';
import type { Tensor, Tensor1D } from '@tensorflow/tfjs-core';
import { gradient, runKernel, type KernelSet } from '../kernel-door';
import type { KernelAttrs, KernelInputs, KernelOutputs } from '../kernels';
import { likeRows, rows } from './compose';

export interface LayerNorm {
  weight: Tensor1D; // [D]
  bias: Tensor1D; // [D]
}

/** (x − mean)/√(var + eps)·weight + bias over the last axis (Ba et al. 2016). */
export function layerNorm<T extends Tensor>(p: LayerNorm, x: T, eps: number): T {
  const D = p.weight.size;
  if (x.shape[x.rank - 1] !== D)
    throw new Error(`layerNorm: ${D} weights expect inputs of width ${D}, found [${x.shape}]`);
  return runKernel('NnLayerNorm', { x, weight: p.weight, bias: p.bias }, { eps })[0] as T;
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

export default {
  references: {
    NnLayerNorm: composed,
    NnLayerNormGradInput: gradInput,
    NnLayerNormGradWeight: ({ dy, x, mean, rstd }) => tf.sum(tf.mul(rows(dy), normalized(x, mean, rstd)), 0),
  },
  gradients: [
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

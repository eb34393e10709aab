/** Activation functions, elementwise. */
import * as tf from '@tensorflow/tfjs-core';
import type { Tensor } from '@tensorflow/tfjs-core';
import { gradient, runKernel, type KernelSet } from '../kernel-door';
import type { KernelInputs } from '../kernels';
import { composedGelu } from './compose';

/** Exact GELU, x·Φ(x) (Hendrycks & Gimpel 2016), not the tanh approximation. */
export function gelu<T extends Tensor>(x: T): T {
  return runKernel('NnGelu', { x }, {}) as T;
}

/** max(x, 0). */
export function relu<T extends Tensor>(x: T): T {
  return runKernel('NnRelu', { x }, {})[0] as T;
}

function geluGrad({ dy, x }: KernelInputs<'NnGeluGrad', Tensor>): Tensor {
  const cdf = tf.mul(0.5, tf.add(1, tf.erf(tf.mul(x, Math.SQRT1_2))));
  const pdf = tf.mul(1 / Math.sqrt(2 * Math.PI), tf.exp(tf.mul(-0.5, tf.square(x))));
  return tf.mul(dy, tf.add(cdf, tf.mul(x, pdf)));
}

export default {
  references: {
    NnGelu: ({ x }) => composedGelu(x),
    NnGeluGrad: geluGrad,
    NnRelu: ({ x }) => [tf.relu(x), tf.greater(x, 0)],
    NnReluGrad: ({ dy, positive }) => tf.mul(dy, tf.cast(positive, 'float32')),
  },
  gradients: [
    gradient('NnGelu', { inputs: ['x'] }, (dy, { x }) => ({
      x: () => runKernel('NnGeluGrad', { dy, x }, {}),
    })),
    gradient('NnRelu', { inputs: [], outputs: [false, true] }, (dy, _saved, [, positive]) => ({
      x: () => runKernel('NnReluGrad', { dy, positive }, {}),
    })),
  ],
} satisfies KernelSet;

/** Activation functions, elementwise. */
import * as tf from '@tensorflow/tfjs-core';
import type { Tensor } from '@tensorflow/tfjs-core';
import { gradient, runKernel } from '../kernel-door';
import type { KernelSet } from '../kernel-door';
import type { KernelInputs } from '../kernels';
import { composedGelu } from './compose';

/** Exact GELU, x·Φ(x) (Hendrycks & Gimpel 2016), not the tanh approximation. */
export function gelu<T extends Tensor>(x: T): T {
  return runKernel('NnGelu', { x }, {}) as T;
}

/** gelu_new(gate)·x, where gelu_new is the tanh approximation of GELU (Shazeer 2020; transformers' NewGELUActivation). */
export function gatedGelu<T extends Tensor>(gate: T, x: T): T {
  if (!tf.util.arraysEqual(gate.shape, x.shape))
    throw new Error(`gatedGelu: expected gate and x of one shape, found [${gate.shape}] and [${x.shape}]`);
  return runKernel('NnGatedGelu', { gate, x }, {}) as T;
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

/** tanh u with u = √(2/π)·(g + 0.044715·g³), of which 0.5·g·(1 + tanh u) is gelu_new. */
function geluTanh(g: Tensor): Tensor {
  return tf.tanh(tf.mul(tf.add(g, tf.mul(tf.mul(tf.square(g), g), 0.044715)), Math.sqrt(2 / Math.PI)));
}

function composedGatedGelu({ gate, x }: KernelInputs<'NnGatedGelu', Tensor>): Tensor {
  return tf.mul(tf.mul(tf.mul(gate, 0.5), tf.add(1, geluTanh(gate))), x);
}

function gatedGeluGrad({ dy, gate, x }: KernelInputs<'NnGatedGeluGrad', Tensor>): [Tensor, Tensor] {
  const tanh = geluTanh(gate);
  const du = tf.mul(tf.add(1, tf.mul(tf.square(gate), 3 * 0.044715)), Math.sqrt(2 / Math.PI));
  const half = tf.mul(tf.add(1, tanh), 0.5);
  const slope = tf.add(half, tf.mul(tf.mul(tf.mul(gate, 0.5), tf.sub(1, tf.square(tanh))), du));
  return [tf.mul(tf.mul(dy, x), slope), tf.mul(dy, tf.mul(gate, half))];
}

export default {
  references: {
    NnGatedGelu: composedGatedGelu,
    NnGatedGeluGrad: gatedGeluGrad,
    NnGelu: ({ x }) => composedGelu(x),
    NnGeluGrad: geluGrad,
    NnRelu: ({ x }) => [tf.relu(x), tf.greater(x, 0)],
    NnReluGrad: ({ dy, positive }) => tf.mul(dy, tf.cast(positive, 'float32')),
  },
  gradients: [
    gradient('NnGatedGelu', { inputs: ['gate', 'x'] }, (dy, { gate, x }) => {
      let made: [Tensor, Tensor] | undefined;
      const both = () => (made ??= runKernel('NnGatedGeluGrad', { dy, gate, x }, {}));
      return { gate: () => both()[0], x: () => both()[1] };
    }),
    gradient('NnGelu', { inputs: ['x'] }, (dy, { x }) => ({
      x: () => runKernel('NnGeluGrad', { dy, x }, {}),
    })),
    gradient('NnRelu', { inputs: [], outputs: [false, true] }, (dy, _saved, [, positive]) => ({
      x: () => runKernel('NnReluGrad', { dy, positive }, {}),
    })),
  ],
} satisfies KernelSet;

/**
 * Long sums of the backends `wasm` and `tensorflow`, which add the numbers of one sum in one chain of float32 additions. Ten million
 * squares came out 0.5 % too small. The other backends add in double.
 */
import * as tf from '@tensorflow/tfjs-core';
import type { Tensor } from '@tensorflow/tfjs-core';

/** Most numbers that are added one after the other. */
const CHAIN = 64;

const backends = new Set(['wasm', 'tensorflow']);

/** Replaces the kernels Sum and Mean of such a backend by sums of blocks, sums of their sums, and so on. */
export function registerLongSums(backendName: string): void {
  if (!backends.delete(backendName)) return; // another backend, or already replaced
  replace(backendName, 'Sum', longSum);
  replace(backendName, 'Mean', (x, axes, keepDims) =>
    tf.div(tf.sum(x, axes, keepDims), sizeOf(axes.map((i) => x.shape[i]))),
  );
}

const sizeOf = (shape: number[]) => tf.util.sizeFromShape(shape);

type Reduce = (x: Tensor, axes: number[], keepDims: boolean) => Tensor;

function replace(backendName: string, kernelName: string, reduce: Reduce): void {
  const plain = tf.getKernel(kernelName, backendName);
  tf.unregisterKernel(kernelName, backendName);
  const kernelFunc: tf.KernelFunc = (call) => {
    const x = call.inputs.x as Tensor; // the engine passes Tensors
    const { axis, keepDims } = call.attrs as unknown as tf.SumAttrs;
    const axes = tf.util.parseAxisParam(axis, x.shape);
    const long = x.dtype === 'float32' && sizeOf(axes.map((i) => x.shape[i])) > CHAIN;
    return long ? tf.tidy(() => reduce(x, axes, keepDims)) : plain.kernelFunc(call);
  };
  tf.registerKernel({ ...plain, kernelFunc });
}

function longSum(x: Tensor, axes: number[], keepDims: boolean): Tensor {
  const kept = x.shape.map((_, i) => i).filter((i) => !axes.includes(i));
  const order = [...kept, ...axes];
  const rows = order.every((axis, i) => axis === i) ? x : tf.transpose(x, order);
  const [M, N] = [kept, axes].map((list) => sizeOf(list.map((i) => x.shape[i])));
  const blocks = Math.ceil(N / CHAIN);
  const flat = tf.reshape(rows, [M, N]);
  const whole =
    blocks * CHAIN === N
      ? flat
      : tf.pad(flat, [
          [0, 0],
          [0, blocks * CHAIN - N],
        ]);
  const sums = tf.sum(tf.reshape(whole, [M, blocks, CHAIN]), 2); // short
  const shape = x.shape.map((n, i) => (axes.includes(i) ? 1 : n));
  return tf.reshape(tf.sum(sums, 1), keepDims ? shape : kept.map((i) => x.shape[i]));
}

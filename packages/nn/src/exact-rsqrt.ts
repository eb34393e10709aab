/**
 * 1/√x of the backend `wasm`, computed in double and rounded once. tfjs rounds twice. Normalisations multiply whole rows by one such number,
 * so all of a row is off in one direction, and so are its gradients.
 */
import * as tf from '@tensorflow/tfjs-core';
import type { TensorInfo } from '@tensorflow/tfjs-core';

/** The part of tfjs's backend that the kernel needs. */
interface WasmBackend {
  readSync(id: object): Float32Array;
  makeOutput(shape: number[], dtype: 'float32'): TensorInfo;
  typedArrayFromHeap(tensor: TensorInfo): Float32Array;
}

const exactRsqrt: tf.KernelFunc = ({ inputs: { x }, backend }) => {
  const wasm = backend as WasmBackend;
  const { shape, dataId } = x as TensorInfo;
  const values = wasm.readSync(dataId);
  const out = wasm.makeOutput(shape, 'float32');
  const to = wasm.typedArrayFromHeap(out);
  for (let i = 0; i < to.length; i++) to[i] = 1 / Math.sqrt(values[i]);
  return out;
};

/** Replaces the kernel Rsqrt of the backend `wasm`; does nothing for another one. */
export function registerExactRsqrt(backendName: string): void {
  if (backendName !== 'wasm') return;
  const plain = tf.getKernel('Rsqrt', backendName);
  if (plain.kernelFunc === exactRsqrt) return;
  tf.unregisterKernel('Rsqrt', backendName);
  tf.registerKernel({ ...plain, kernelFunc: exactRsqrt });
}

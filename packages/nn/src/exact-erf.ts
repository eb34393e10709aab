/**
 * The error function of the backends `cpu` and `native`. tfjs's own is a polynomial that is up to 1.7e-7 off (Abramowitz &
 * Stegun 7.1.26). GELU and its gradient are computed from it.
 */
import * as tf from '@tensorflow/tfjs-core';
import type { TensorInfo } from '@tensorflow/tfjs-core';

/** The part of tfjs's backend that a kernel needs. */
interface CpuBackend {
  data: { get(id: object): { values: ArrayLike<number> } };
  makeTensorInfo(shape: number[], dtype: string, values: Float32Array): TensorInfo;
}

const exactErf: tf.KernelFunc = ({ inputs: { x }, backend }) => {
  const cpu = backend as CpuBackend;
  const { shape, dataId } = x as TensorInfo;
  return cpu.makeTensorInfo(shape, 'float32', Float32Array.from(cpu.data.get(dataId).values, erf));
};

/**
 * Replaces the kernel Erf of the backend `cpu`, and of `native`, which takes over cpu's kernels; does nothing for another one. Each
 * start of a backend calls it, because tfjs-node registers a second copy of cpu's kernels when it is loaded.
 */
export function registerExactErf(backendName: string): void {
  if (backendName !== 'cpu' && backendName !== 'native') return;
  const plain = tf.getKernel('Erf', backendName);
  if (plain.kernelFunc === exactErf) return;
  tf.unregisterKernel('Erf', backendName);
  tf.registerKernel({ ...plain, kernelFunc: exactErf });
}

/** erf(x) in double: the Maclaurin series, and from 2 on the continued fraction of erfc (Abramowitz & Stegun 7.1.5, 7.1.14). */
export function erf(x: number): number {
  const a = Math.abs(x);
  if (a >= 6) return Math.sign(x);
  if (!(a < 2)) return Number.isNaN(x) ? x : Math.sign(x) * (1 - erfc(a));
  let [term, sum] = [x, x];
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
    term *= (-x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}

/** For a ≥ 2. */
function erfc(a: number): number {
  let fraction = a;
  for (let n = 60; n > 0; n--) fraction = a + n / 2 / fraction;
  return Math.exp(-a * a) / Math.sqrt(Math.PI) / fraction;
}

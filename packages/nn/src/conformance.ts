/**
 * For authors of backends: compares every kernel with its composition on the backend `cpu`, and gradients with finite differences. The
 * checks run on the active backend, in any test runner.
 */
import * as tf from '@tensorflow/tfjs-core';
import type { Tensor } from '@tensorflow/tfjs-core';
import { cpuBackend, startBackend } from './backends';
import { gradientCases, kernelCases } from './conformance-cases';
import type { KernelCase } from './conformance-cases';
import { gradientError } from './finite-difference';
import { runKernel } from './kernel-door';
import type { KernelName } from './kernels';
import { references } from './own-kernels';

export { gradientError } from './finite-difference';
export { random } from './conformance-cases';

export interface Check {
  name: string;
  /** @throws with what was expected and found */
  run(): Promise<void>;
}

/** Largest difference from the composition, relative to numbers larger than 1. */
const TOLERANCE = 1e-5;
/** Central differences in float32 with ε = 1e-2 have a rounding error of about 1e-4. */
export const FD_TOLERANCE = 2e-3;

/** All checks, one for each case of a kernel and one for each gradient. For a backend in float32. */
export function conformanceChecks(): Check[] {
  const kernels = Object.entries(kernelCases) as [KernelName, KernelCase<KernelName>[]][];
  return [
    ...kernels.flatMap(([name, cases]) =>
      cases.map((one, i) => ({ name: `${name}, case ${i + 1}`, run: () => checkKernel(name, one) })),
    ),
    ...Object.entries(gradientCases).map(([name, [f, xs]]) => ({
      name: `gradient: ${name}`,
      run: () => checkGradient(name, f, xs()),
    })),
  ];
}

async function checkKernel<K extends KernelName>(name: K, { inputs, attrs }: KernelCase<K>): Promise<void> {
  const found = await valuesOf(() => runKernel(name, inputs(), attrs));
  const expected = await onCpu(() => valuesOf(() => references[name](inputs(), attrs)));
  if (found.length !== expected.length)
    throw new Error(`${name}: expected ${expected.length} outputs, found ${found.length}`);
  expected.forEach(({ shape, values }, i) => {
    const where = `${name}, output ${i}`;
    if (found[i].shape.join() !== shape.join())
      throw new Error(`${where}: expected shape [${shape}], found [${found[i].shape}]`);
    const wrong = firstDifference(found[i].values, values, TOLERANCE);
    if (wrong) throw new Error(`${where}, ${wrong}`);
  });
}

async function checkGradient(name: string, f: (...xs: Tensor[]) => Tensor, xs: Tensor[]): Promise<void> {
  const error = await gradientError(f, xs);
  tf.dispose(xs);
  if (!(error < FD_TOLERANCE))
    throw new Error(`gradient of ${name}: expected an error below ${FD_TOLERANCE}, found ${error}`);
}

async function valuesOf(f: () => Tensor | Tensor[]) {
  const outputs = [tf.tidy(f)].flat();
  const read = outputs.map(async (x) => ({ shape: x.shape, values: Float32Array.from(await x.data()) }));
  const values = await Promise.all(read);
  tf.dispose(outputs);
  return values;
}

/** Runs `f` with the backend `cpu` and restores the previous one. */
async function onCpu<T>(f: () => Promise<T>): Promise<T> {
  const before = tf.getBackend();
  await startBackend(cpuBackend);
  try {
    return await f();
  } finally {
    await tf.setBackend(before);
  }
}

/** Where `found` first differs by more than `tolerance`, relative to numbers larger than 1; undefined if nowhere. */
export function firstDifference(
  found: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
): string | undefined {
  if (found.length !== expected.length) return `expected ${expected.length} values, found ${found.length}`;
  for (let i = 0; i < expected.length; i++) {
    const allowed = tolerance * Math.max(1, Math.abs(expected[i]));
    if (!(Math.abs(found[i] - expected[i]) <= allowed))
      return `element ${i}: expected ${expected[i]}, found ${found[i]} (tolerance ${tolerance})`;
  }
  return undefined;
}

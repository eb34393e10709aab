/**
 * For authors of backends: compares every op and its gradients with the compositions on the backend `cpu`, and the gradients with
 * finite differences. The checks run on the active backend, in any test runner.
 */
import * as tf from '@tensorflow/tfjs-core';
import type { Tensor } from '@tensorflow/tfjs-core';
import { cpuBackend, startBackend } from './backends';
import { conformanceCases } from './conformance-cases';
import type { ConformanceCase } from './conformance-cases';
import { gradientError, weightedGradients } from './finite-difference';

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

/**
 * All checks, one for each op and set of options. Without a tolerance, for a backend in float32; with one, for a precision that rounds
 * operands, whose gradients are not compared with finite differences: rounding is larger than these.
 */
export function conformanceChecks(tolerance?: number): Check[] {
  return Object.entries(conformanceCases).map(([name, one]) => ({
    name,
    run: () => check(name, one, tolerance),
  }));
}

async function check(
  name: string,
  { f, xs, forwardOnly }: ConformanceCase,
  tolerance: number | undefined,
): Promise<void> {
  const op = f as (...xs: Tensor[]) => Tensor;
  const results = () => {
    const inputs = xs();
    return [op(...inputs), ...(forwardOnly ? [] : weightedGradients(op, inputs).grads)];
  };
  const found = await valuesOf(results);
  const expected = await onCpu(() => valuesOf(results));
  expected.forEach(({ shape, values }, i) => {
    const where = `${name}, ${i === 0 ? 'output' : `gradient of input ${i - 1}`}`;
    if (found[i].shape.join() !== shape.join())
      throw new Error(`${where}: expected shape [${shape}], found [${found[i].shape}]`);
    const wrong = firstDifference(found[i].values, values, tolerance ?? TOLERANCE);
    if (wrong) throw new Error(`${where}, ${wrong}`);
  });
  if (forwardOnly || tolerance !== undefined) return;
  const inputs = xs();
  const error = await gradientError(op, inputs);
  tf.dispose(inputs);
  if (!(error < FD_TOLERANCE))
    throw new Error(`${name}: expected a gradient with an error below ${FD_TOLERANCE}, found ${error}`);
}

async function valuesOf(f: () => Tensor[]) {
  const outputs = tf.tidy(f);
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

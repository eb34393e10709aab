/** Tensors and structural ops: thin wrappers of tfjs, so that other packages do not import it. */
import * as tf from '@tensorflow/tfjs-core';
import type { Scalar, Tensor, Tensor1D, Tensor2D, Tensor3D, Variable } from '@tensorflow/tfjs-core';
import { floatsOf, isQuantised } from '../stored';
import type { StoredBytes, StoringBackend } from '../stored';

/** A tensor holding `values` in row-major order; An Int32Array gives int32, other values float32, unless `dtype` is set. */
export function tensor<T extends Tensor = Tensor>(
  values: Float32Array | Int32Array | readonly number[],
  shape: readonly number[],
  dtype: 'float32' | 'int32' = values instanceof Int32Array ? 'int32' : 'float32',
): T {
  const size = tf.util.sizeFromShape([...shape]);
  if (values.length !== size)
    throw new Error(`tensor: shape [${shape}] needs ${size} values, found ${values.length}`);
  return tf.tensor(values as Float32Array, [...shape], dtype) as T;
}

/** Zeros of the given shape, float32. */
export function zeros<T extends Tensor = Tensor>(shape: readonly number[]): T {
  return tf.zeros([...shape]) as T;
}

/**
 * A trainable leaf, float32 in memory even if `value` is a stored weight. `adamW` changes its values in place.
 * @throws Error for a weight that was rounded to int8
 */
export function variable<R extends tf.Rank = tf.Rank>(value: Tensor<R>, name?: string): Variable<R> {
  if (isQuantised(value))
    throw new Error(`variable: ${name ?? 'a weight'} was rounded to int8; load a weight that trains without`);
  const unique = name === undefined ? undefined : `${name}#${nextVariable++}`;
  const held = floatsOf(value);
  if (!held) return tf.variable(value, true, unique);
  const leaf = tf.variable(held as Tensor<R>, true, unique);
  held.dispose();
  return leaf;
}
let nextVariable = 0; // tfjs needs unique variable names in a process

/** Runs `f` and frees every tensor made inside that it does not return. */
export function tidy<T extends tf.TensorContainer>(f: () => T): T {
  return tf.tidy(f);
}

/** Protects a tensor from the enclosing `tidy`. */
export function keep<T extends Tensor>(x: T): T {
  return tf.keep(x);
}

/** Frees a tensor, or every tensor of a tree. */
export function dispose(tree: object): void {
  if (tree instanceof tf.Tensor) tree.dispose();
  else
    for (const child of Object.values(tree)) if (child !== null && typeof child === 'object') dispose(child);
}

/**
 * Number of tensors, their bytes as counted by the engine, and separately the bytes of stored weights (`storedTensor`).
 */
export function memory(): { numTensors: number; numBytes: number; numBytesStored: number } {
  const { numTensors, numBytes, ...own } = tf.memory() as tf.MemoryInfo & Partial<StoredBytes>;
  const { numBytesStored = 0, numBytesNotHeld = 0 } = own;
  return { numTensors, numBytes: numBytes - numBytesNotHeld, numBytesStored };
}

/**
 * Runs `work` and returns the most bytes that its tensors took at once, above those before it. 0 on a backend that does not count them.
 */
export async function peakBytes(work: () => Promise<unknown>): Promise<number> {
  const backend = tf.backend() as Partial<StoringBackend>;
  const peak = () => (tf.memory() as Partial<StoredBytes>).numBytesPeak ?? 0;
  backend.restartPeak?.();
  const before = peak();
  await work();
  return peak() - before;
}

/** a + b; shapes broadcast as in NumPy. */
export function add<T extends Tensor>(a: T, b: Tensor): T {
  return tf.add(a, b);
}

/** a − b; shapes broadcast. */
export function sub<T extends Tensor>(a: T, b: Tensor): T {
  return tf.sub(a, b);
}

/** a · b elementwise; shapes broadcast. */
export function mul<T extends Tensor>(a: T, b: Tensor): T {
  return tf.mul(a, b);
}

/** a / b elementwise; shapes broadcast. */
export function div<T extends Tensor>(a: T, b: Tensor): T {
  return tf.div(a, b);
}

/** c · x for a plain number c. */
export function scale<T extends Tensor>(x: T, c: number): T {
  return tf.mul(x, c);
}

/** eˣ elementwise. */
export function exp<T extends Tensor>(x: T): T {
  return tf.exp(x);
}

/** Natural logarithm elementwise. */
export function log<T extends Tensor>(x: T): T {
  return tf.log(x);
}

/** √x elementwise. */
export function sqrt<T extends Tensor>(x: T): T {
  return tf.sqrt(x);
}

/** The same elements in another shape; one −1 is inferred. */
export function reshape<T extends Tensor = Tensor>(x: Tensor, shape: readonly number[]): T {
  return tf.reshape(x, [...shape]) as T;
}

/** Joins along `axis`; returns a single tensor itself. */
export function concat<T extends Tensor>(xs: readonly T[], axis: number): T {
  return xs.length === 1 ? xs[0] : tf.concat([...xs], axis);
}

/** The block of `x` that starts at `begin` and has extent `size` (−1: to the end). */
export function slice<T extends Tensor>(x: T, begin: readonly number[], size: readonly number[]): T {
  return tf.slice(x, [...begin], [...size]);
}

/** Equal parts along `axis`. */
export function split<T extends Tensor>(x: T, parts: number, axis: number): T[] {
  return [...tf.split<Tensor>(x, parts, axis)] as T[]; // a copy: the tape keeps the array itself
}

/** Axis i of the result is axis perm[i] of `x`. */
export function transpose<T extends Tensor>(x: T, perm: readonly number[]): T {
  return tf.transpose(x, [...perm]);
}

/** `x` repeated reps[i] times along axis i. */
export function tile<T extends Tensor>(x: T, reps: readonly number[]): T {
  return tf.tile(x, [...reps]);
}

/** Sum over `axis` (all axes when absent). */
export function sum<T extends Tensor = Tensor>(x: Tensor, axis?: number, keepDims = false): T {
  return tf.sum(x, axis, keepDims) as T;
}

/** Mean over `axis` (all axes when absent). */
export function mean<T extends Tensor = Tensor>(x: Tensor, axis?: number, keepDims = false): T {
  const count = axis === undefined ? x.size : x.shape[axis < 0 ? x.rank + axis : axis];
  return tf.mul(tf.sum(x, axis, keepDims), 1 / count) as T;
}

/** Maximum over `axis`; on ties every maximal element receives the gradient. */
export function max<T extends Tensor = Tensor>(x: Tensor, axis: number, keepDims = false): T {
  return tf.max(x, axis, keepDims) as T;
}

/** Softmax over the last axis. No gradient. */
export function softmax<T extends Tensor>(x: T): T {
  return tf.softmax(x);
}

/** Log-softmax over the last axis. No gradient. */
export function logSoftmax<T extends Tensor>(x: T): T {
  return tf.sub(x, tf.logSumExp(x, -1, true));
}

/** Index of the maximum along the last axis, int32. No gradient. */
export function argMax<T extends Tensor = Tensor>(x: Tensor): T {
  return tf.argMax(x, -1) as T;
}

export type { Scalar, Tensor, Tensor1D, Tensor2D, Tensor3D, Variable };

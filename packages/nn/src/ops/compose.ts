/** What the compositions of several kernels share. */
import * as tf from '@tensorflow/tfjs-core';
import type { Tensor } from '@tensorflow/tfjs-core';
import type { KernelAttrs } from '../kernels';
import { uniform } from '../rng';
import type { Key } from '../rng';

/** a·b of matrices (or stacks of them), either one transposed first: wasm's fast matmul takes plain operands only. */
export function matMul(a: Tensor, b: Tensor, transposeA = false, transposeB = false): Tensor {
  const flip = (x: Tensor) =>
    tf.transpose(
      x,
      [...x.shape.keys()].map((d) => (d < x.rank - 2 ? d : 2 * x.rank - 3 - d)),
    );
  return tf.matMul(transposeA ? flip(a) : a, transposeB ? flip(b) : b);
}

/** [..., N] → [M, N]. */
export function rows(x: Tensor): Tensor {
  return x.rank === 2 ? x : tf.reshape(x, [-1, x.shape[x.rank - 1]]);
}

/** [M, N] → [..., N] with the leading dimensions of `x`. */
export function likeRows(y: Tensor, x: Tensor): Tensor {
  return x.rank === 2 ? y : tf.reshape(y, [...x.shape.slice(0, -1), y.shape[1] as number]);
}

/** x·Φ(x). */
export function composedGelu(x: Tensor): Tensor {
  return tf.mul(tf.mul(x, 0.5), tf.add(1, tf.erf(tf.mul(x, Math.SQRT1_2))));
}

/** 1 / (1 − rate) where the stream's uniform is ≥ rate, else 0; shaped like the tensor it multiplies. */
export function dropoutMask(shape: number[], rate: number, key0: number, key1: number): Tensor {
  const draws = uniform({ k0: key0, k1: key1 }, tf.util.sizeFromShape(shape));
  return tf.tensor(
    draws.map((u) => (u >= rate ? 1 / (1 - rate) : 0)),
    shape,
    'float32',
  );
}

/** What NnDropout does; nothing at rate 0. */
export function dropped(x: Tensor, { rate, key0, key1 }: KernelAttrs<'NnDropout'>): Tensor {
  return rate > 0 ? tf.mul(x, dropoutMask(x.shape, rate, key0, key1)) : x;
}

/** Attributes of a kernel that drops; rate 0 without a key. */
export function dropoutAttrs(rate: number, key: Key | undefined): KernelAttrs<'NnDropout'> {
  if (!key || rate === 0) return { rate: 0, key0: 0, key1: 0 };
  if (!(rate > 0 && rate < 1)) throw new RangeError(`dropout: rate must be in [0, 1), found ${rate}`);
  return { rate, key0: key.k0, key1: key.k1 };
}

/** @throws unless x [..., in] fits the weight [out, in] */
export function checkWidth(op: string, weight: Tensor, x: Tensor): void {
  const width = weight.shape[1];
  if (x.shape[x.rank - 1] !== width)
    throw new Error(
      `${op}: the weight [${weight.shape}] expects inputs of width ${width}, found [${x.shape}]`,
    );
}

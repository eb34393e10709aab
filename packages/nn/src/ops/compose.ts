/** Shared helpers of the compositions of kernels. */
import * as tf from '@tensorflow/tfjs-core';
import type { Tensor } from '@tensorflow/tfjs-core';
import type { KernelAttrs } from '../kernels';
import { uniform } from '../rng';
import type { Key } from '../rng';

/** a·b of (batched) matrices. Operands are transposed first, since only plain operands are fast on wasm. */
export function matMul(a: Tensor, b: Tensor, transposeA = false, transposeB = false): Tensor {
  const flip = (x: Tensor) =>
    tf.transpose(
      x,
      [...x.shape.keys()].map((d) => (d < x.rank - 2 ? d : 2 * x.rank - 3 - d)),
    );
  if (transposeA && !transposeB && a.rank === 2 && a.shape[0] > CHAIN) return sumOfHalves(a, b);
  return tf.matMul(transposeA ? flip(a) : a, transposeB ? flip(b) : b);
}

/** Most rows that are summed in one chain of float32 additions, as matmul and scatterND of the backend `wasm` do. */
const CHAIN = 256;

/** aᵀ·b over many rows, a [K, M] and b [K, N]: gradients of weights. */
function sumOfHalves(a: Tensor, b: Tensor): Tensor {
  return inHalves(a.shape[0], (begin, size) =>
    matMul(tf.slice(a, [begin, 0], [size, -1]), tf.slice(b, [begin, 0], [size, -1]), true),
  );
}

/** The sum of `part` over the rows begin … begin + size − 1 of K, as a tree of halves of at most 256 rows. */
export function inHalves(K: number, part: (begin: number, size: number) => Tensor, begin = 0): Tensor {
  if (K <= CHAIN) return part(begin, K);
  const half = CHAIN * 2 ** Math.floor(Math.log2((K - 1) / CHAIN)); // the largest CHAIN·2ⁿ below K
  return tf.add(inHalves(half, part, begin), inHalves(K - half, part, begin + half));
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

/** The factor of each element: 1 / (1 − rate) if the uniform number of the stream is ≥ rate, else 0. */
export function dropoutMask(shape: number[], rate: number, key0: number, key1: number): Tensor {
  const draws = uniform({ k0: key0, k1: key1 }, tf.util.sizeFromShape(shape));
  return tf.tensor(
    draws.map((u) => (u >= rate ? 1 / (1 - rate) : 0)),
    shape,
    'float32',
  );
}

/** The composition of NnDropout; x itself at rate 0. */
export function dropped(x: Tensor, { rate, key0, key1 }: KernelAttrs<'NnDropout'>): Tensor {
  return rate > 0 ? tf.mul(x, dropoutMask(x.shape, rate, key0, key1)) : x;
}

/** Dropout attributes of a kernel; rate 0 without a key. */
export function dropoutAttrs(rate: number, key: Key | undefined): KernelAttrs<'NnDropout'> {
  if (!key || rate === 0) return { rate: 0, key0: 0, key1: 0 };
  if (!(rate > 0 && rate < 1)) throw new RangeError(`dropout: expected a rate in [0, 1), found ${rate}`);
  return { rate, key0: key.k0, key1: key.k1 };
}

/** @throws Error unless x [..., in] fits the weight [out, in] */
export function checkWidth(op: string, weight: Tensor, x: Tensor): void {
  const width = weight.shape[1];
  if (x.shape[x.rank - 1] !== width)
    throw new Error(
      `${op}: the weight [${weight.shape}] expects inputs of width ${width}, found [${x.shape}]`,
    );
}

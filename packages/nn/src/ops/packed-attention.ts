/**
 * Causal attention of rows without pads that share prefixes. N positions, P prefixes of Q positions each, B rows, T positions of the
 * longest row, D width, H heads.
 */
import * as tf from '@tensorflow/tfjs-core';
import type { Tensor, Tensor2D } from '@tensorflow/tfjs-core';
import { gradient, runKernel } from '../kernel-door';
import type { KernelSet } from '../kernel-door';
import type { KernelAttrs, KernelInputs, KernelOutputs, Packing } from '../kernels';
import type { AttentionOptions } from './attention';
import { dropoutAttrs } from './compose';

type Attrs = KernelAttrs<'NnPackedAttention'>;

/**
 * Multi-head causal attention within packed rows: q, k, v [N, D] → [N, D]. A position of a prefix attends to that prefix; a position
 * of a text attends to the prefix of its row and to its own text. Equal to `attention` of the rows that the packing describes.
 * @throws Error if the packing does not fit
 */
export function packedAttention(
  q: Tensor2D,
  k: Tensor2D,
  v: Tensor2D,
  packing: Packing,
  { numHeads, scale, dropout }: Pick<AttentionOptions, 'numHeads' | 'scale' | 'dropout'>,
): Tensor2D {
  const [N, D] = q.shape;
  if (D % numHeads !== 0)
    throw new Error(`packedAttention: width ${D} is not divisible by ${numHeads} heads`);
  if (![k, v].every(({ shape }) => tf.util.arraysEqual(shape, q.shape)))
    throw new Error(
      `packedAttention: q [${q.shape}] expects k and v of one shape, found [${k.shape}], [${v.shape}]`,
    );
  checkPacking(packing, N);
  const { rate: dropoutRate, ...keys } = dropoutAttrs(dropout?.rate ?? 0, dropout?.key);
  const attrs = { packing, numHeads, scale: scale ?? (D / numHeads) ** -0.5, dropoutRate, ...keys };
  return runKernel('NnPackedAttention', { q, k, v }, attrs)[0] as Tensor2D;
}

function checkPacking({ prefixes: P, prefixLength: Q, pictures, starts }: Packing, N: number): void {
  const falls = starts.some((start, b) => b > 0 && start < starts[b - 1]);
  const used = new Set(pictures);
  const whole = P === 0 || (used.size === P && pictures.every((p) => p >= 0 && p < P));
  const fits = starts.length === pictures.length + 1 && starts[0] === P * Q && starts.at(-1) === N;
  if (falls || !whole || !fits)
    throw new Error(
      `packedAttention: expected ${P} prefixes of ${Q} positions, each with a text, and then texts, ${N} positions in all, ` +
        `found texts that start at [${starts.join()}], of pictures [${pictures.join()}]`,
    );
}

/** The rows of a packing as a grid [B, T], padded on the right. A prefix is in every row that has it. */
interface Grid {
  shape: [B: number, T: number];
  /** [B·T]: the position in each place; a pad repeats a position, and nothing is read from it. */
  from: Int32Array;
  /** [N]: the place of each position; of a prefix, in its first row. */
  to: Int32Array;
  /** [B·T, 1]: 1 in the places of `to`. */
  read: Float32Array;
}

function gridOf({ prefixLength: Q, pictures, starts }: Packing): Grid {
  const B = pictures.length;
  const T = Q + pictures.reduce((most, _, b) => Math.max(most, starts[b + 1] - starts[b]), 0);
  const from = new Int32Array(B * T);
  const to = new Int32Array(starts[B]).fill(-1);
  const read = new Float32Array(B * T);
  pictures.forEach((picture, b) => {
    for (let t = 0; t < Q + starts[b + 1] - starts[b]; t++) {
      const [position, place] = [t < Q ? picture * Q + t : starts[b] + t - Q, b * T + t];
      from[place] = position;
      if (to[position] >= 0) continue;
      to[position] = place;
      read[place] = 1;
    }
  });
  return { shape: [B, T], from, to, read };
}

const int32 = (values: Int32Array) => tf.tensor1d(values, 'int32');

/** [N, D] → [B, T, D]. */
function spread(x: Tensor, { shape: [B, T], from }: Grid): Tensor {
  return tf.reshape(runKernel('NnGatherRows', { x, indices: int32(from) }, {}), [B, T, -1]);
}

/** [B, T, D] → [N, D]: what is in the places of `to`. */
function collected(x: Tensor, { shape: [B, T], to }: Grid): Tensor {
  return runKernel('NnGatherRows', { x: tf.reshape(x, [B * T, -1]), indices: int32(to) }, {});
}

/** [B, T, D] → [N, D]: the sum over the rows that have a position. */
function summed(x: Tensor, { shape: [B, T], from, to }: Grid): Tensor {
  const dy = tf.reshape(x, [B * T, -1]);
  return runKernel('NnScatterAddRows', { dy, indices: int32(from) }, { rows: to.length });
}

function composed(
  { q, k, v }: KernelInputs<'NnPackedAttention', Tensor>,
  { packing, ...attrs }: Attrs,
): KernelOutputs<'NnPackedAttention', Tensor> {
  const grid = gridOf(packing);
  const rows = { q: spread(q, grid), k: spread(k, grid), v: spread(v, grid) };
  const [out, lse] = runKernel('NnAttention', rows, { ...attrs, causal: true });
  return [collected(out, grid), lse];
}

function composedGrad(
  { q, k, v, out, lse, dout }: KernelInputs<'NnPackedAttentionGrad', Tensor>,
  { packing, ...attrs }: Attrs,
): KernelOutputs<'NnPackedAttentionGrad', Tensor> {
  const grid = gridOf(packing);
  const read = tf.tensor(grid.read, [...grid.shape, 1]);
  const rows = {
    ...{ q: spread(q, grid), k: spread(k, grid), v: spread(v, grid) },
    ...{ out: spread(out, grid), lse, dout: tf.mul(spread(dout, grid), read) },
  };
  // Pads and repeated prefixes have no gradient of their own, so dq is read from one place and dk and dv are sums.
  const [dq, dk, dv] = runKernel('NnAttentionGrad', rows, { ...attrs, causal: true });
  return [collected(dq, grid), summed(dk, grid), summed(dv, grid)];
}

export default {
  references: { NnPackedAttention: composed, NnPackedAttentionGrad: composedGrad },
  gradients: [
    gradient(
      'NnPackedAttention',
      { inputs: ['q', 'k', 'v'], outputs: [true, true] },
      (dout, inputs, [out, lse], attrs) => {
        let made: Tensor[] | undefined;
        const grads = () =>
          (made ??= runKernel('NnPackedAttentionGrad', { ...inputs, out, lse, dout }, attrs));
        return { q: () => grads()[0], k: () => grads()[1], v: () => grads()[2] };
      },
    ),
  ],
} satisfies KernelSet;

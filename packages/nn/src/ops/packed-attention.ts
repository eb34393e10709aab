/**
 * Causal attention of rows without pads that share prefixes. N positions, P prefixes of Q positions each, B texts, T positions of the
 * longest text, D width, H heads.
 */
import * as tf from '@tensorflow/tfjs-core';
import type { Tensor, Tensor2D } from '@tensorflow/tfjs-core';
import { gradient, runKernel } from '../kernel-door';
import type { KernelSet } from '../kernel-door';
import type { KernelAttrs, KernelInputs, KernelOutputs, Packing } from '../kernels';
import { fold } from '../rng';
import type { AttentionOptions } from './attention';
import { dropoutAttrs } from './compose';

type Attrs = KernelAttrs<'NnPackedAttention'>;
type Rows = Packing;

/** Number of positions of a packing. */
export const positionsOf = ({ starts }: Rows): number => starts[starts.length - 1];

/**
 * Multi-head causal attention within packed rows: q, k, v [N, D] → [N, D]. A position of a prefix attends to that prefix; a position
 * of a text attends to the prefix of its picture and to its own text. Equal to `attention` of the rows that the packing describes.
 * @throws Error if the packing does not fit
 */
export function packedAttention(
  q: Tensor2D,
  k: Tensor2D,
  v: Tensor2D,
  packing: Rows,
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
  const common = { numHeads, scale: scale ?? (D / numHeads) ** -0.5, causal: true };
  const part = (name: 'prefix' | 'text') => {
    const key = dropout?.key && fold(dropout.key, name);
    const { rate: dropoutRate, ...keys } = dropoutAttrs(dropout?.rate ?? 0, key);
    return { ...common, dropoutRate, ...keys };
  };
  const attrs = { packing, prefix: part('prefix'), text: part('text') };
  return runKernel('NnPackedAttention', { q, k, v }, attrs)[0] as Tensor2D;
}

function checkPacking({ prefixes: P, prefixLength: Q, pictures, starts }: Rows, N: number): void {
  const falls = starts.some((start, b) => b > 0 && start < starts[b - 1]);
  const other = Q > 0 ? pictures.find((p) => !(p >= 0 && p < P)) : undefined;
  if (
    starts.length !== pictures.length + 1 ||
    starts[0] !== P * Q ||
    falls ||
    starts.at(-1) !== N ||
    other !== undefined
  )
    throw new Error(
      `packedAttention: expected ${P} prefixes of ${Q} positions and then texts, ${N} positions in all, ` +
        `found texts that start at [${starts.join()}], of pictures [${pictures.join()}]`,
    );
}

/** The texts of a packing as rows [B, T], padded on the right; a pad repeats a position, and what is computed for it is not used. */
interface Grid {
  B: number;
  T: number;
  /** [B·T]: the position of each place, among those of the texts. */
  from: Int32Array;
  /** The place of each position of the texts. */
  to: Int32Array;
  /** [B·T, 1]: 0 for pads. */
  used: Float32Array;
}

function gridOf({ starts }: Rows): Grid {
  const B = starts.length - 1;
  const lengths = Array.from({ length: B }, (_, b) => starts[b + 1] - starts[b]);
  const T = Math.max(0, ...lengths);
  const from = new Int32Array(B * T);
  const used = new Float32Array(B * T);
  const to = new Int32Array(starts[B] - starts[0]);
  lengths.forEach((length, b) => {
    for (let t = 0; t < length; t++) {
      const position = starts[b] - starts[0] + t;
      from[b * T + t] = position;
      used[b * T + t] = 1;
      to[position] = b * T + t;
    }
  });
  return { B, T, from, to, used };
}

const gather = (x: Tensor, indices: Int32Array) =>
  runKernel('NnGatherRows', { x, indices: tf.tensor1d(indices, 'int32') }, {});

/** Tensors [N, C] as the prefixes [P, Q, C] and the texts [B, T, C]. */
function parted({ prefixes: P, prefixLength: Q }: Rows, { B, T, from }: Grid) {
  return {
    prefix: (x: Tensor) => tf.reshape(tf.slice(x, 0, P * Q), [P, Q, -1]),
    text: (x: Tensor) => tf.reshape(gather(tf.slice(x, P * Q), from), [B, T, -1]),
  };
}

/** [P, Q, C] → [B, Q, C]: the prefix of each text. */
function prefixOfEach(x: Tensor, pictures: Int32Array): Tensor {
  const [P, Q, C] = x.shape;
  return tf.reshape(gather(tf.reshape(x, [P, Q! * C!]), pictures), [-1, Q!, C!]);
}

/** The inputs of the two attentions; texts see the keys of their prefix before their own. */
function inputsOf({ q, k, v }: KernelInputs<'NnPackedAttention', Tensor>, packing: Rows, grid: Grid) {
  const { prefix, text } = parted(packing, grid);
  const shared = packing.prefixes > 0 && { q: prefix(q), k: prefix(k), v: prefix(v) };
  const keys = (own: Tensor, before: Tensor | undefined) =>
    before ? tf.concat([prefixOfEach(before, packing.pictures), text(own)], 1) : text(own);
  return {
    prefix: shared || undefined,
    text: {
      q: text(q),
      k: keys(k, shared ? shared.k : undefined),
      v: keys(v, shared ? shared.v : undefined),
    },
  };
}

/** The inverse of `parted`: prefixes [P, Q, C], if any, and texts [B, T, C] → [N, C]. */
function joined(prefix: Tensor | undefined, text: Tensor, { B, T, to }: Grid): Tensor {
  const flat = (x: Tensor, rows: number) => tf.reshape(x, [rows, -1]);
  const own = gather(flat(text, B * T), to);
  return prefix ? tf.concat([flat(prefix, prefix.shape[0] * prefix.shape[1]!), own], 0) : own;
}

/** [B, H, T] → [B, T, H], and back. */
const swapped = (lse: Tensor) => tf.transpose(lse, [0, 2, 1]);

function composed(
  inputs: KernelInputs<'NnPackedAttention', Tensor>,
  { packing, prefix, text }: Attrs,
): KernelOutputs<'NnPackedAttention', Tensor> {
  const grid = gridOf(packing);
  const given = inputsOf(inputs, packing, grid);
  const shared = given.prefix && runKernel('NnAttention', given.prefix, prefix);
  const own = runKernel('NnAttention', given.text, text);
  const lse = joined(shared && swapped(shared[1]), swapped(own[1]), grid);
  return [joined(shared?.[0], own[0], grid), lse];
}

function composedGrad(
  { out, lse, dout, ...inputs }: KernelInputs<'NnPackedAttentionGrad', Tensor>,
  { packing, prefix, text }: Attrs,
): KernelOutputs<'NnPackedAttentionGrad', Tensor> {
  const grid = gridOf(packing);
  const given = inputsOf(inputs, packing, grid);
  const part = parted(packing, grid);
  const { prefixes: P, prefixLength: Q, pictures } = packing;
  const used = tf.tensor(grid.used, [grid.B, grid.T, 1]);
  const seen = { out: part.text(out), lse: swapped(part.text(lse)), dout: tf.mul(part.text(dout), used) };
  const own = runKernel('NnAttentionGrad', { ...given.text, ...seen }, text);
  if (!given.prefix) return own.map((d) => joined(undefined, d, grid)) as [Tensor, Tensor, Tensor];
  const saved = { out: part.prefix(out), lse: swapped(part.prefix(lse)), dout: part.prefix(dout) };
  const shared = runKernel('NnAttentionGrad', { ...given.prefix, ...saved }, prefix);
  // A prefix is read by itself and by the texts of its picture.
  const keys = (ofText: Tensor, ofPrefix: Tensor) => {
    const D = ofPrefix.shape[2]!;
    const read = tf.reshape(tf.slice(ofText, [0, 0, 0], [-1, Q, -1]), [grid.B, Q * D]);
    const indices = tf.tensor1d(pictures, 'int32');
    const summed = runKernel('NnScatterAddRows', { dy: read, indices }, { rows: P });
    const total = tf.add(ofPrefix, tf.reshape(summed, [P, Q, D]));
    return joined(total, tf.slice(ofText, [0, Q, 0]), grid);
  };
  return [joined(shared[0], own[0], grid), keys(own[1], shared[1]), keys(own[2], shared[2])];
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

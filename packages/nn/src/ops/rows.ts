/** Rows of tables by index. */
import * as tf from '@tensorflow/tfjs-core';
import type { Tensor, Tensor1D, Tensor2D, Tensor3D } from '@tensorflow/tfjs-core';
import { gradient, runKernel } from '../kernel-door';
import type { KernelSet } from '../kernel-door';
import { inHalves } from './compose';

export interface Embedding {
  weight: Tensor2D; // [V, D]
}

/** Rows of `x` [N, …] by index → [M, …]. Indices in an Int32Array are checked. */
export function gatherRows<T extends Tensor>(x: T, indices: Int32Array | Tensor1D): T {
  const [rows, ...rest] = x.shape;
  const wrong = indices instanceof Int32Array ? indices.find((i) => i < 0 || i >= rows) : undefined;
  if (wrong !== undefined) throw new RangeError(`gatherRows: index ${wrong} is outside the ${rows} rows`);
  const at = indices instanceof Int32Array ? tf.tensor1d(indices, 'int32') : indices;
  const table = tf.reshape(x, [rows, tf.util.sizeFromShape(rest)]);
  const out = runKernel('NnGatherRows', { x: table, indices: at }, {});
  return tf.reshape(out, [at.size, ...rest]) as T;
}

/** Rows of the table for ids of the given shape → [...shape, D]. */
export function embedding<T extends Tensor = Tensor3D>(
  p: Embedding,
  ids: Int32Array,
  shape: readonly number[],
): T {
  return tf.reshape(gatherRows(p.weight, ids), [...shape, p.weight.shape[1]]) as T;
}

/** Token embeddings of ids [B·T] → [B, T, D]. @throws Error on an id outside the vocabulary */
export function embedIds(p: Embedding, ids: Int32Array, [B, T]: [B: number, T: number]): Tensor3D {
  const V = p.weight.shape[0];
  if (ids.length !== B * T)
    throw new Error(`embedTokens: expected ${B} × ${T} = ${B * T} ids, found ${ids.length}`);
  const bad = ids.findIndex((id) => id < 0 || id >= V);
  if (bad >= 0)
    throw new Error(
      `embedTokens: expected ids in 0 … ${V - 1}, found ${ids[bad]} at row ${Math.floor(bad / T)}, column ${bad % T}; ` +
        'use the tokenizer of this checkpoint',
    );
  return embedding(p, ids, [B, T]);
}

export default {
  references: {
    NnGatherRows: ({ x, indices }) => tf.gather(x, indices as Tensor1D, 0),
    NnScatterAddRows: ({ dy, indices }, { rows }) => {
      const D = dy.shape[1] as number;
      return inHalves(dy.shape[0], (begin, size) => {
        const at = tf.reshape(tf.slice(indices, begin, size), [size, 1]);
        return tf.scatterND(at, tf.slice(dy, [begin, 0], [size, D]), [rows, D]); // sums repeated rows
      });
    },
  },
  gradients: [
    gradient('NnGatherRows', { inputs: ['x', 'indices'] }, (dy, { x, indices }) => ({
      x: () => runKernel('NnScatterAddRows', { dy, indices }, { rows: x.shape[0] }),
    })),
  ],
} satisfies KernelSet;

/**
 * The relative position bias of T5 (Raffel et al. 2020, section 2.1): one number per head and bucket of distances.
 * Reference: `T5Attention._relative_position_bucket` and `compute_bias` of transformers 5. H heads, Tq queries, Tk keys.
 */
import { gatherRows, reshape, transpose } from '@blip2/nn';
import type { Embedding, Tensor, Tensor4D } from '@blip2/nn';
import type { T5Config } from './config';

export type BucketOptions = Pick<
  T5Config,
  'relative_attention_num_buckets' | 'relative_attention_max_distance'
>;

/** The bucket of a distance, position of the key minus that of the query. Without `bidirectional`, later keys share bucket 0. */
export function bucketOf(distance: number, bidirectional: boolean, o: BucketOptions): number {
  const buckets = o.relative_attention_num_buckets / (bidirectional ? 2 : 1);
  const later = bidirectional && distance > 0 ? buckets : 0;
  const far = bidirectional ? Math.abs(distance) : Math.max(-distance, 0);
  const exact = Math.floor(buckets / 2); // from here on, buckets grow logarithmically
  if (far < exact) return later + far;
  // In float32, as the reference: at powers of two another rounding would be another bucket.
  const { fround, log } = Math;
  const scale = fround(log(o.relative_attention_max_distance / exact));
  const step = fround(fround(fround(log(fround(far / exact))) / scale) * (buckets - exact));
  return later + Math.min(exact + Math.trunc(step), buckets - 1);
}

/**
 * The bias [1, H, Tq, Tk] from the table [buckets, H] of block 0; the queries are the last Tq of Tk positions.
 * All blocks of a stack add it to their scores.
 */
export function positionBias(
  table: Embedding,
  [Tq, Tk]: [Tq: number, Tk: number],
  bidirectional: boolean,
  cfg: BucketOptions,
): Tensor4D {
  const past = Tk - Tq;
  const byDistance = new Map<number, number>();
  const buckets = Int32Array.from({ length: Tq * Tk }, (_, i) => {
    const distance = (i % Tk) - Math.floor(i / Tk) - past;
    let bucket = byDistance.get(distance);
    if (bucket === undefined) byDistance.set(distance, (bucket = bucketOf(distance, bidirectional, cfg)));
    return bucket;
  });
  const rows = gatherRows(table.weight, buckets); // [Tq·Tk, H]
  return reshape(transpose<Tensor>(rows, [1, 0]), [1, rows.shape[1], Tq, Tk]);
}

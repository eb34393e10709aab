import type { StoredWeight } from '@blip2/nn';
import type { TensorEntry, WeightReader } from '@blip2/weights';

/** A matrix of a checkpoint as a weight in its encoding; undefined for other ranks and dtypes. */
export function storedWeight(
  { name, dtype, shape }: TensorEntry,
  reader: Pick<WeightReader, 'span'>,
): StoredWeight | undefined {
  const [rows, columns] = shape;
  if (shape.length !== 2 || (dtype !== 'F32' && dtype !== 'F16' && dtype !== 'BF16')) return undefined;
  return { shape: [rows!, columns!], data: reader.span(name), encoding: { kind: dtype } };
}

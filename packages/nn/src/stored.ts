/** Frozen weights that keep their checkpoint's encoding instead of becoming float32 arrays, on backends that support it. */
import * as tf from '@tensorflow/tfjs-core';
import type { Tensor, Tensor2D } from '@tensorflow/tfjs-core';

/** Bytes of a file, `begin` counted from its start, or bytes in memory. */
export type Span =
  { readonly file: string; readonly begin: number; readonly bytes: number } | { readonly bytes: Uint8Array };

/**
 * How a weight's numbers are encoded, row by row. Kinds with scales or tables carry the spans of these:
 * another member of this union, and its spans in `spansOf`.
 */
export type Encoding = { readonly kind: 'F32' } | { readonly kind: 'F16' } | { readonly kind: 'BF16' };

/** A frozen weight as its checkpoint stores it. */
export interface StoredWeight {
  readonly shape: readonly [rows: number, columns: number];
  readonly data: Span;
  readonly encoding: Encoding;
}

/** The spans of a weight, in the order in which backends expect them: its data, then those of its encoding. */
export function spansOf({ data, encoding }: StoredWeight): readonly Span[] {
  switch (encoding.kind) {
    case 'F32':
    case 'F16':
    case 'BF16':
      return [data];
  }
}

/** Bytes of a weight with its scales and tables. */
export function storedBytes(weight: StoredWeight): number {
  return spansOf(weight).reduce(
    (sum, { bytes }) => sum + (typeof bytes === 'number' ? bytes : bytes.length),
    0,
  );
}

/** What a backend that can store weights offers. */
export interface StoringBackend {
  /** The kinds of encodings that `store` accepts. */
  readonly encodings: ReadonlySet<Encoding['kind']>;
  /** Undefined for a weight of fewer than `atLeast` numbers. */
  store(weight: StoredWeight, atLeast?: number): tf.TensorInfo | undefined;
  /** The values of a stored tensor as an ordinary one; undefined for an ordinary one. */
  dequantised(tensor: tf.TensorInfo): tf.TensorInfo | undefined;
}

/** What a storing backend adds to `tf.memory()`. */
export interface StoredBytes {
  numBytesStored: number;
  /** Of tfjs's numBytes, what it counts for stored weights. */
  numBytesNotHeld: number;
}

function ofBackend(info: tf.TensorInfo | undefined): Tensor | undefined {
  return info && tf.engine().makeTensorFromTensorInfo(info, tf.backend());
}

/**
 * A stored weight [rows, columns] as a tensor: `linear` and `gatherRows` read the encoded numbers, other ops see their exact
 * values as float32. A file is mapped into memory and must not change or shrink while the tensor lives; bytes are copied.
 * Undefined if the active backend cannot store the encoding, or the weight is too small to be worth it: load float32 then.
 * @param atLeast numbers from which it is stored; the backend's choice by default
 * @throws when the spans do not hold such a weight
 */
export function storedTensor(weight: StoredWeight, atLeast?: number): Tensor2D | undefined {
  const backend = tf.backend() as Partial<StoringBackend>;
  if (!backend.encodings?.has(weight.encoding.kind)) return undefined;
  return ofBackend(backend.store?.(weight, atLeast)) as Tensor2D | undefined;
}

/** An ordinary tensor with the values of a stored one; undefined for an ordinary one. */
export function floatsOf(x: Tensor): Tensor | undefined {
  const backend = tf.backend() as Partial<StoringBackend>;
  return ofBackend(backend.dequantised?.(x));
}

/** Frozen weights that stay encoded as in their checkpoint, on backends that support it. */
import * as tf from '@tensorflow/tfjs-core';
import type { Tensor, Tensor1D, Tensor2D } from '@tensorflow/tfjs-core';

/** Bytes of a file, `begin` counted from its start, or bytes in memory. */
export type Span =
  { readonly file: string; readonly begin: number; readonly bytes: number } | { readonly bytes: Uint8Array };

/**
 * The encoding of the numbers of a weight, row by row. For one with scales or tables, add a member with their spans, and a case in
 * `spansOf`. Scales, factors, absmax and tables are float32. INT8 and INT4 are what `quantised` makes, BNB8 and BNB4 are bitsandbytes'
 * int8 and its nf4 and fp4, with an absmax for each 64 numbers, row after row.
 */
export type Encoding =
  | { readonly kind: 'F32' }
  | { readonly kind: 'F16' }
  | { readonly kind: 'BF16' }
  | { readonly kind: 'INT8'; readonly scales: Span; readonly factors: Span }
  | { readonly kind: 'INT4'; readonly steps: Span; readonly scales: Span; readonly factors: Span }
  | { readonly kind: 'BNB8'; readonly scales: Span }
  | { readonly kind: 'BNB4'; readonly absmax: Span; readonly table: Span };

/** A frozen weight as its checkpoint stores it. */
export interface StoredWeight {
  readonly shape: readonly [rows: number, columns: number];
  readonly data: Span;
  readonly encoding: Encoding;
  /** These are not the checkpoint's own numbers: they were rounded when it was loaded. */
  readonly rounded?: boolean;
}

/** The spans of a weight, in the order in which backends expect them: its data, then those of its encoding. */
export function spansOf({ data, encoding }: StoredWeight): readonly Span[] {
  switch (encoding.kind) {
    case 'F32':
    case 'F16':
    case 'BF16':
      return [data];
    case 'INT8':
      return [data, encoding.scales, encoding.factors];
    case 'INT4':
      return [data, encoding.steps, encoding.scales, encoding.factors];
    case 'BNB8':
      return [data, encoding.scales];
    case 'BNB4':
      return [data, encoding.absmax, encoding.table];
  }
}

/** Bytes of a weight with its scales and tables. */
export const storedBytes = (weight: StoredWeight): number =>
  spansOf(weight).reduce((sum, span) => sum + spanLength(span), 0);

export const spanLength = ({ bytes }: Span): number => (typeof bytes === 'number' ? bytes : bytes.length);

/** Reads `length` bytes of a file; given by Node. */
export type ReadFile = (file: string, at: number, length: number) => Uint8Array;

/** `length` bytes of a span, from `at` on. @throws Error for a file, without a function that reads it */
export function spanBytes(span: Span, at: number, length: number, readFile?: ReadFile): Uint8Array {
  if (!('file' in span)) return span.bytes.subarray(at, at + length);
  if (readFile) return readFile(span.file, span.begin + at, length);
  throw new Error(`expected bytes in memory, found the file ${span.file}`);
}

/** The INT8 or INT4 encoding of a weight in another one, in memory, with a factor above 0 for each column. */
export type Rounding = (weight: StoredWeight, factors: Float32Array, bits: 8 | 4) => StoredWeight;

/** A backend that can store weights. */
export interface StoringBackend {
  /** The kinds of encodings that `store` accepts. */
  readonly encodings: ReadonlySet<Encoding['kind']>;
  /** Undefined for a weight of fewer than `atLeast` numbers. */
  store(weight: StoredWeight, atLeast?: number): tf.TensorInfo | undefined;
  /** How `quantised` rounds, if another backend's code may do it. */
  rounding?: Rounding;
  /** The INT8 or INT4 encoding of a weight in another one, in memory; INT4 with the root of its inputs, if it is given. */
  quantised?(weight: StoredWeight, factors?: Float32Array, bits?: 8 | 4, root?: tf.TensorInfo): StoredWeight;
  /** The root [K, K] of inputs x [..., K]; undefined if it does not exist. */
  inputRoot?(x: tf.TensorInfo, leftOut: tf.TensorInfo, damping: number): tf.TensorInfo | undefined;
  /** Whether a tensor is a stored weight that was rounded when it was loaded. */
  isRounded?(tensor: tf.TensorInfo): boolean;
  /** The largest magnitude of each column of x [..., K] → [K], infinite or NaN if the column has such a number. */
  columnMaxima?(x: tf.TensorInfo): tf.TensorInfo;
  /** Takes the pages of a memory-mapped weight out of this process's memory until it is used again. */
  dropPages?(tensor: tf.TensorInfo): void;
  /** The values of a stored tensor as an ordinary one; undefined for an ordinary one. */
  dequantised(tensor: tf.TensorInfo): tf.TensorInfo | undefined;
  /** @throws naming the first memory-mapped file that was rewritten since it was opened */
  checkFiles(): void;
  /** Counts `numBytesPeak` from now on. */
  restartPeak(): void;
}

/** Additional fields of `tf.memory()` with such a backend. */
export interface StoredBytes {
  numBytesStored: number;
  /** The part of tfjs's numBytes that is for stored weights. */
  numBytesNotHeld: number;
  /** The most bytes in use at once of the buffers that the backend reuses. */
  numBytesPeak: number;
}

function ofBackend(info: tf.TensorInfo | undefined): Tensor | undefined {
  return info && tf.engine().makeTensorFromTensorInfo(info, tf.backend());
}

/**
 * A stored weight [rows, columns] as a tensor: `linear` and `gatherRows` read the encoded numbers, other ops get the exact values as
 * float32. A file is memory-mapped and must not change while the tensor exists; bytes are copied. Undefined if the active
 * backend does not support the encoding or the weight is small: load it as float32 then.
 * @param atLeast fewest numbers of a stored weight; by default, the backend decides
 * @throws Error if the spans do not fit the weight
 */
export function storedTensor(weight: StoredWeight, atLeast?: number): Tensor2D | undefined {
  const backend = tf.backend() as Partial<StoringBackend>;
  if (!backend.encodings?.has(weight.encoding.kind)) return undefined;
  return ofBackend(backend.store?.(weight, atLeast)) as Tensor2D | undefined;
}

/**
 * A weight in the INT8 encoding, in memory: q · scale of its row · factor of its column, q from -127 to 127. In the INT4 encoding, q is
 * from -8 to 7, times a step from 1 to 16 for each row and 64 columns. With precision int8, `linear` of
 * native multiplies x by the factors, rounds each row to 8 bits with a scale of its own, and sums integers; that of webgpu multiplies x by
 * the weight's values. Undefined if the active backend does neither.
 * @param factors one per column, above 0; all 1 by default (SmoothQuant, Xiao et al. 2023)
 * @param root of `inputRoot`, for INT4: outputs for these inputs change least, instead of the weight (GPTQ, Frantar et al. 2023)
 */
export function quantised(
  weight: StoredWeight,
  factors?: Float32Array,
  bits: 8 | 4 = 8,
  root?: Tensor2D,
): StoredWeight | undefined {
  const backend = tf.backend() as Partial<StoringBackend>;
  return backend.encodings?.has(`INT${bits}`) ? backend.quantised?.(weight, factors, bits, root) : undefined;
}

/**
 * R [K, K] for `quantised`: R·Rᵀ is xᵀ·x of a linear layer's inputs x [..., K] without some rows [M, K] of it, plus `damping` of its mean
 * diagonal on the diagonal. Its lower triangle has no meaning. Undefined if the inputs are not finite or all zero.
 * @throws Error if the active backend has no INT4 weights
 */
export function inputRoot(x: Tensor, leftOut: Tensor2D, damping: number): Tensor2D | undefined {
  const backend = tf.backend() as Partial<StoringBackend>;
  if (!backend.inputRoot) throw new Error('inputRoot: expected the backend native');
  return ofBackend(backend.inputRoot(x, leftOut, damping)) as Tensor2D | undefined;
}

/** Whether the values of a tensor were rounded when it was loaded, so that a checkpoint must not be written from them. */
export function isQuantised(x: Tensor): boolean {
  const backend = tf.backend() as Partial<StoringBackend>;
  return backend.isRounded?.(x) ?? false;
}

/**
 * The largest magnitude of each column of a stored or ordinary tensor [..., K] → [K]; infinite or NaN if the column has such a number.
 * @throws Error if the active backend cannot store weights
 */
export function columnMaxima(x: Tensor): Tensor1D {
  const made = ofBackend((tf.backend() as Partial<StoringBackend>).columnMaxima?.(x));
  if (!made) throw new Error('columnMaxima: expected a backend with stored weights');
  return made as Tensor1D;
}

/** Takes the pages of a memory-mapped weight out of this process's memory until it is used again. Nothing, for an ordinary tensor. */
export function dropPages(x: Tensor): void {
  (tf.backend() as Partial<StoringBackend>).dropPages?.(x);
}

/**
 * Checks that no memory-mapped file of stored weights was rewritten since it was opened. One that became shorter makes the ops that use it
 * throw. Call it before results are saved.
 * @throws Error naming the file
 */
export function checkStoredFiles(): void {
  (tf.backend() as Partial<StoringBackend>).checkFiles?.();
}

/** An ordinary tensor with the values of a stored one; undefined for an ordinary one. */
export function floatsOf(x: Tensor): Tensor | undefined {
  const backend = tf.backend() as Partial<StoringBackend>;
  return ofBackend(backend.dequantised?.(x));
}

/** Frozen matrices that stay in their files instead of becoming float32 arrays. What a backend may offer, by its methods. */
import * as tf from '@tensorflow/tfjs-core';
import type { Tensor, Tensor2D } from '@tensorflow/tfjs-core';

/** Where a matrix lies in a safetensors file, row by row. An entry of a weight reader is one. */
export interface StoredSource {
  file: string;
  /** First byte, counted from the start of the file. */
  begin: number;
  /** As the file names it: F32, F16, BF16 can be stored. */
  dtype: string;
  shape: readonly number[];
}

interface StoringBackend {
  store?(source: StoredSource, atLeast?: number): tf.TensorInfo | undefined;
  widened?(tensor: tf.TensorInfo): tf.TensorInfo | undefined;
}

/** What a storing backend adds to `tf.memory()`. */
export interface StoredBytes {
  numBytesStored: number;
  /** Of tfjs's numBytes, what it counts for stored matrices. */
  numBytesNotHeld: number;
}

function ofBackend(info: tf.TensorInfo | undefined): Tensor | undefined {
  return info && tf.engine().makeTensorFromTensorInfo(info, tf.backend());
}

/**
 * A frozen matrix [rows, columns] that stays in its file, to be used like any tensor: `linear` and `gatherRows` read it
 * there, other ops see its exact values as float32. The file must not change or shrink while the tensor lives.
 * Undefined where the active backend cannot store it, or better does not (small ones); load its values then.
 * @param atLeast elements from which it is stored; the backend's choice by default
 * @throws when the file does not hold such a matrix there
 */
export function storedTensor(source: StoredSource, atLeast?: number): Tensor2D | undefined {
  const backend = tf.backend() as StoringBackend;
  return ofBackend(backend.store?.(source, atLeast)) as Tensor2D | undefined;
}

/** An ordinary tensor with the values of a stored one; undefined for an ordinary one. */
export function floatsOf(x: Tensor): Tensor | undefined {
  const backend = tf.backend() as StoringBackend;
  return ofBackend(backend.widened?.(x));
}

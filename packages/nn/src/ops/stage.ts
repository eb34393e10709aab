import type { Tensor } from '@tensorflow/tfjs-core';
import { fold } from '../rng';
import type { Key } from '../rng';

/** Options of a part of a model. With a `dropout` key it runs in training mode, without one in evaluation mode. */
export interface StageOptions {
  dropout?: Key;
  /** Recompute each layer in the backward pass instead of storing its activations. */
  checkpoint?: boolean;
  /** Called with every named intermediate result; for parity tests. */
  tap?: (name: string, x: Tensor) => void;
}

/** Key of one random operation in a layer; undefined (evaluation) stays undefined. */
export function site(key: Key | undefined, name: number | string): Key | undefined {
  return key && fold(key, name);
}

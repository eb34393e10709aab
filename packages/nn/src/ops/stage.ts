/** How a part of a model runs. */
import type { Tensor } from '@tensorflow/tfjs-core';
import { fold } from '../rng';
import type { Key } from '../rng';

/** How one part of the model runs. A `dropout` key means training mode; without it the part runs as in evaluation. */
export interface StageOptions {
  dropout?: Key;
  /** Recompute each layer in the backward pass instead of storing its activations. */
  checkpoint?: boolean;
  /** Sees every named intermediate; for parity tests. */
  tap?: (name: string, x: Tensor) => void;
}

/** Key of one site in a layer; undefined stays undefined, so evaluation needs no special case. */
export function site(key: Key | undefined, name: number | string): Key | undefined {
  return key && fold(key, name);
}

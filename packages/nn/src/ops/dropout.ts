/** Dropout by counter-based randomness (rng.ts). */
import type { Tensor } from '@tensorflow/tfjs-core';
import { gradient, runKernel } from '../kernel-door';
import type { KernelSet } from '../kernel-door';
import type { Key } from '../rng';
import { dropoutAttrs, dropped } from './compose';

/** Zeroes elements with probability `rate` and scales the rest by 1/(1 − rate); without a key, returns x itself. */
export function dropout<T extends Tensor>(x: T, rate: number, key: Key | undefined): T {
  const attrs = dropoutAttrs(rate, key);
  return attrs.rate === 0 ? x : (runKernel('NnDropout', { x }, attrs) as T);
}

export default {
  references: { NnDropout: ({ x }, attrs) => dropped(x, attrs) },
  gradients: [
    gradient('NnDropout', { inputs: [] }, (dy, _saved, _outputs, attrs) => ({
      x: () => runKernel('NnDropout', { x: dy }, attrs),
    })),
  ],
} satisfies KernelSet;

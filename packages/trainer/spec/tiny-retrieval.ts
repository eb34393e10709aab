/** A tiny job for retrieval: the fixture's model, whose tokenizer knows these words, and the coloured squares of tiny.ts. */
import { fileURLToPath } from 'node:url';
import { tinyConfig } from './tiny';

export const TINY_RETRIEVAL = fileURLToPath(new URL('../../retrieval/fixtures/tiny', import.meta.url));

export const tinyPairs = (root: string, given: Record<string, unknown> = {}) =>
  tinyConfig(root, {
    model: TINY_RETRIEVAL,
    preset: 'qformer-projection',
    per_device_train_batch_size: 4,
    generation: undefined,
    ...given,
  });

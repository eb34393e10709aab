/** A long run must not grow: tensors and their bytes exactly, the process within what a garbage collector leaves lying about. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { adapterBase, imageFeatures, loss } from '@blip2/blip2';
import type { Blip2, TokenBatch } from '@blip2/blip2';
import { loadFolder } from '@blip2/blip2/node';
import { dispose, memory, normal, rngKey, tensor, tidy } from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import type { Tensor4D } from '@blip2/nn';
import { applyPreset, trainable } from '@blip2/peft-lora';
import { describe, expect, it } from 'vitest';
import { partKeys } from './part-keys';
import { createAdamW, disposeAdamW } from '../train/optimizer';
import { TINY_MODEL } from '../../spec/tiny';
import { ADAMW } from '../../spec/toy';
import type { TrainParts } from '../train/step';
import { trainStep } from '../train/step';

setFlagsFromString('--expose-gc');
/** Collects garbage, so that only what is held counts. */
const collect = runInNewContext('gc') as () => void;

const STEPS = 500;
const WARM_UP = 100;
const native = (await availableBackends()).includes('native');

/** Two rows of image tokens and `length` words, the first of which is the prompt. */
function tokens(model: Blip2, length: number): TokenBatch {
  const { num_query_tokens: Q, image_token_index } = model.config;
  const T = Q + length;
  const words = Array.from({ length }, (_, i) => 5 + i);
  const row = [...new Array<number>(Q).fill(image_token_index!), ...words];
  const label = row.map((id, i) => (i > Q ? id : -100));
  return {
    shape: [2, T],
    input_ids: Int32Array.from([...row, ...row]),
    attention_mask: new Int32Array(2 * T).fill(1),
    labels: Int32Array.from([...label, ...label]),
  };
}

function parts(model: Blip2): TrainParts<TokenBatch> {
  const { image_size: S } = model.config.vision_config;
  let step = 0;
  const image_features = tidy(() =>
    imageFeatures(model, tensor<Tensor4D>(normal(rngKey(1), 2 * 3 * S * S), [2, 3, S, S])),
  );
  const trainables = trainable(model.params);
  return {
    trainables,
    optimizer: createAdamW(trainables, { ...ADAMW, max_grad_norm: 1 }),
    schedule: () => 1e-4,
    loss: (batch, key) => {
      const dropout = partKeys(key, trainables.keys());
      return loss(model, { image_features }, batch, { dropout, checkpoint: step++ % 10 === 0 });
    },
    size: ({ labels }) => ({ tokens: labels!.filter((label) => label >= 0).length, images: 2 }),
    batches: async function* () {},
    batchesPerEpoch: 1,
  };
}

describe.skipIf(!native)(native ? 'memory' : 'memory (SKIPPED: no native backend)', () => {
  it(
    `${STEPS} steps hold no tensor, no byte and no memory of the process`,
    { timeout: 300_000 },
    async () => {
      await useBackend('native');
      const frozen = await loadFolder(TINY_MODEL);
      const model = {
        ...frozen,
        params: applyPreset(frozen.params, 'lora+qformer', {}, 0, adapterBase(frozen.config)).params,
      };
      const training = parts(model);
      const batches = [3, 7, 5].map((length) => tokens(model, length));
      const seen: { numTensors: number; numBytes: number; held: number; rss: number }[] = [];
      for (let step = 0; step < STEPS; step++) {
        const group = step % 4 === 3 ? [batches[0], batches[1]] : [batches[step % 3]];
        const { loss: value } = await trainStep(training, group, { seed: 0, step, lr: 1e-4 });
        expect(Number.isFinite(value)).toBe(true);
        const { numTensors, numBytes } = memory();
        if (step === WARM_UP || step === STEPS - 1) collect();
        const { heapUsed, external, rss } = process.memoryUsage();
        seen.push({ numTensors, numBytes, held: heapUsed + external, rss });
      }
      const [first, last] = [seen[WARM_UP], seen[STEPS - 1]];
      for (const { numTensors, numBytes } of seen)
        expect({ numTensors, numBytes }).toEqual({
          numTensors: seen[0].numTensors,
          numBytes: seen[0].numBytes,
        });
      expect(last.held - first.held).toBeLessThan(8 << 20);
      // What the addon leaked would show only here, in both halves; the allocator's own habits move it by tens of megabytes once in a while.
      const middle = seen[(WARM_UP + STEPS) / 2];
      expect(Math.min(middle.rss - first.rss, last.rss - middle.rss)).toBeLessThan(80 << 20);
      disposeAdamW(training.optimizer);
      dispose(model.params);
    },
  );
});

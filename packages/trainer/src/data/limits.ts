/** Whether the model has room for every text of a run. */
import type { Blip2Config } from '@blip2/blip2';
import type { Processor, ReadyDataset } from '@blip2/data-captions';
import { promptBatch, readyDataset } from '@blip2/data-captions';
import type { FitConfig } from '../config';
import { ConfigError } from '../config';
import { promptOf } from '../evaluation';
import type { WorkHooks } from '../hooks';
import type { FitData } from './open';

/**
 * Tokenises every text of the run and the prompts of the final table once, so that a text that is too long for the model is
 * reported now instead of in the middle of an epoch.
 * @throws DataError for a text that is too long or spells out a special token; ConfigError for generation without room
 */
export function readyData(
  data: FitData,
  config: FitConfig,
  processor: Processor,
  { text_config: { max_position_embeddings } }: Pick<Blip2Config, 'text_config'>,
  hooks: WorkHooks,
): FitData<ReadyDataset> {
  const { task, prompt, max_text_length } = config;
  const room = max_position_embeddings - processor.numQueryTokens;
  const limit = Math.min(max_text_length ?? room, room);
  const texts = { task, prompt, max_text_length: limit, truncate: max_text_length !== undefined };
  const total = Object.values(data).reduce((sum, set) => sum + (set?.examples.length ?? 0), 0);
  const report = (done: number) => hooks.onPhase?.({ name: 'checking texts', done, total });
  let before = 0;
  const ready = <D extends FitData['test']>(set: D) => {
    if (!set) return undefined;
    const made = readyDataset(set, processor, texts, (done) => report(before + done));
    before += set.examples.length;
    return made;
  };
  const all = { train: ready(data.train)!, validation: ready(data.validation), test: ready(data.test) };
  checkGeneration(all, config, processor, max_position_embeddings);
  return all;
}

function checkGeneration(
  data: FitData,
  config: FitConfig,
  processor: Processor,
  max_position_embeddings: number,
): void {
  const asked = [data.validation, data.test].flatMap((set) => set?.examples ?? []);
  const prompts = new Set(asked.map((example) => promptOf(example, config)));
  const [, length] = promptBatch(processor, [...prompts]).shape;
  const room = max_position_embeddings + 1 - length; // the last new token is never read
  if (prompts.size > 0 && config.generation.max_new_tokens > room)
    throw new ConfigError('generation.max_new_tokens', [
      `expected at most ${room}, found ${config.generation.max_new_tokens}: the model has ${max_position_embeddings} positions, ` +
        `image and longest prompt take ${length}`,
    ]);
}

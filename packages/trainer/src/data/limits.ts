/** Whether the model has room for every text of a run. */
import { defaultNewTokens } from '@blip2/blip2';
import type { Blip2Config } from '@blip2/blip2';
import type { Processor, TextOptions } from '@blip2/data-captions';
import { lossRows, promptBatch, promptFor, readyDataset } from '@blip2/data-captions';
import type { FitConfig } from '../config';
import { ConfigError } from '../config';
import { promptOf, USUAL_NEW_TOKENS } from '../evaluation';
import type { WorkHooks } from '../hooks';
import type { FitData, ReadyData } from './open';

/** What the texts of a run are used for, and the room that the model has for them. */
export function textRules(
  { task, prompt, max_text_length }: Pick<FitConfig, 'task' | 'prompt' | 'max_text_length'>,
  processor: Processor,
  { text_config: { max_position_embeddings = Infinity } }: Pick<Blip2Config, 'text_config'>,
): TextOptions & { processor: Processor } {
  const room = max_position_embeddings - processor.numQueryTokens;
  const limit = Math.min(max_text_length ?? room, room);
  const own = promptFor(task, prompt, processor);
  return {
    task,
    prompt: own,
    processor,
    max_text_length: isFinite(limit) ? limit : undefined,
    truncate: max_text_length !== undefined,
  };
}

/**
 * Tokenises the texts of training and `eval_loss` once. All have been checked by `loadData`.
 * @throws ConfigError for generation without room
 */
export function readyData(
  data: FitData,
  config: FitConfig,
  { processor, ...texts }: ReturnType<typeof textRules>,
  sizes: Pick<Blip2Config, 'text_config'>,
  hooks: WorkHooks,
): ReadyData {
  const { validation } = data;
  const captions = validation && { ...validation, examples: lossRows(validation.examples, config.task) };
  const total = data.train.examples.length + (captions?.examples.length ?? 0);
  const report = (done: number) => hooks.onPhase?.({ name: 'checking texts', done, total });
  const train = readyDataset(data.train, processor, texts, report);
  const done = train.examples.length;
  const rows = captions && readyDataset(captions, processor, texts, (more) => report(done + more));
  checkGeneration(data, config, processor, sizes, hooks);
  return { ...data, train, lossRows: rows };
}

function checkGeneration(
  data: FitData,
  config: FitConfig,
  processor: Processor,
  sizes: Pick<Blip2Config, 'text_config'>,
  hooks: WorkHooks,
): void {
  const asked = [data.validation, data.test].flatMap((set) => set?.examples ?? []);
  const prompts = new Set(asked.map((example) => promptOf(example, config)));
  if (prompts.size === 0) return;
  const rows = promptBatch(processor, [...prompts]);
  const [, length] = rows.shape;
  const { max_position_embeddings = Infinity } = sizes.text_config;
  const why = `the model has ${max_position_embeddings} positions, image and longest prompt take ${length}`;
  const { max_new_tokens } = config.generation;
  if (max_new_tokens === undefined) {
    const most = defaultNewTokens(sizes, rows, USUAL_NEW_TOKENS);
    if (most < USUAL_NEW_TOKENS) hooks.onMessage?.(`generation: texts of at most ${most} tokens: ${why}`);
    return;
  }
  const room = max_position_embeddings + 1 - length; // the last new token is never read
  if (max_new_tokens > room)
    throw new ConfigError('generation.max_new_tokens', [
      `expected at most ${room}, found ${max_new_tokens}: ${why}`,
    ]);
}

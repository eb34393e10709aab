/** The examples of a run, by the part they play in it. */
import type { Dataset } from '@blip2/data-captions';
import { checkTask, listSplits, openDataset } from '@blip2/data-captions';
import type { FitConfig } from './config';
import { ConfigError } from './config-schema';
import { partsReader, referenceOf } from './evaluation';

export interface FitData {
  train: Dataset;
  validation?: Dataset;
  test?: Dataset;
}

/**
 * Training examples from `data`; validation and test examples from their own paths, or from the splits of `data`
 * that have these names. Without either there is no evaluation.
 * @throws DataError for a path that is no data set, bad rows, or rows that lack what the task needs; ConfigError for a
 * parts_pattern that reads no training text
 */
export async function loadData(config: FitConfig): Promise<FitData> {
  const { train_limit, eval_limit, seed } = config;
  const splits = await listSplits(config.data);
  const held = async (own: string | undefined, split: 'validation' | 'test') => {
    if (own !== undefined) return openHeldOut(own, split, eval_limit, seed);
    return splits.includes(split) ? openDataset(config.data, { split, limit: eval_limit, seed }) : undefined;
  };
  const data = {
    train: await openDataset(config.data, { limit: train_limit, seed }),
    validation: await held(config.eval_data, 'validation'),
    test: config.final_evaluation === 'test' ? await held(config.test_data, 'test') : undefined,
  };
  for (const set of Object.values(data)) if (set) checkTask(set, config);
  checkPattern(config, data.train);
  return data;
}

function checkPattern({ parts_pattern, task }: FitConfig, { path, examples }: Dataset): void {
  if (parts_pattern === undefined) return;
  const read = partsReader(parts_pattern);
  if (examples.some((example) => read(referenceOf(example, task)))) return;
  const first = JSON.stringify(referenceOf(examples[0], task));
  throw new ConfigError('parts_pattern', [
    `expected to match training texts of ${path}, matches none of ${examples.length}; the first is ${first}`,
  ]);
}

/** A data set given for one purpose: its split of that name when it is split, else all of it. */
async function openHeldOut(
  path: string,
  split: string,
  limit: number | undefined,
  seed: number,
): Promise<Dataset> {
  const splits = await listSplits(path);
  return openDataset(path, { split: splits.length > 0 ? split : undefined, limit, seed });
}

/** The examples of the final table. */
export function finalSplit(
  config: FitConfig,
  data: FitData,
): { split: 'test' | 'validation'; dataset: Dataset } | undefined {
  if (config.final_evaluation === 'none') return undefined;
  if (data.test) return { split: 'test', dataset: data.test };
  return data.validation && { split: 'validation', dataset: data.validation };
}

/** How much there is, for the log. */
export function dataLine(data: FitData): string {
  const parts = (['train', 'validation', 'test'] as const).flatMap((split) => {
    const count = data[split]?.examples.length;
    return count === undefined ? [] : [`${count.toLocaleString('en')} ${split}`];
  });
  return `data: ${parts.join(', ')}`;
}

/** The examples of a run: training, validation and test. */
import type { Dataset, DatasetOptions, ReadyDataset, TextRules } from '@blip2/data-captions';
import { countsOf, layoutOf, listSplits, lossRows } from '@blip2/data-captions';
import { checkMetric } from '../evaluation/best-metric';
import type { FitConfig } from '../config';
import { ConfigError } from '../config';
import { besides, partsReader, referenceOf } from '../evaluation';
import type { WorkHooks } from '../hooks';
import type { OpenExamples } from './examples';
import { examplesOpener } from './examples';

export interface FitData {
  /** one example for each row */
  train: Dataset;
  /** one example for each picture (and question), with all references: see `groupExamples` */
  validation?: Dataset;
  test?: Dataset;
}

/** The data of a run with its tokens. */
export interface ReadyData extends FitData {
  train: ReadyDataset;
  /** the rows of `eval_loss`: one for each caption of `validation` */
  lossRows?: ReadyDataset;
}

/**
 * Training examples from `data`; validation and test examples from their own paths, or from the splits of `data`
 * with these names or drawn by `split_fractions`. Without either there is no evaluation.
 * @param texts how texts become tokens, to find those that the model has no room for
 * @throws DataError for a path that is no data set, or bad rows; ConfigError for a parts_pattern that matches no training text, or a metric that this data does not support
 */
export async function loadData(
  config: FitConfig,
  hooks: WorkHooks = {},
  texts: TextRules = { task: config.task, prompt: config.prompt },
): Promise<FitData> {
  const { train_limit, eval_limit, seed, skip_bad, split_fractions } = config;
  const layout = layoutOf(config);
  const own = { ...layout, seed, skip_bad, texts };
  const heldOut = { ...own, limit: eval_limit, references_for: config.task };
  const open = examplesOpener(hooks);
  const splits = await listSplits(config.data, split_fractions, layout);
  const held = async (path: string | undefined, split: 'validation' | 'test') => {
    if (path !== undefined) return openHeldOut(open, path, split, heldOut);
    if (!splits.includes(split)) return undefined;
    return open(config.data, { ...heldOut, split_fractions, split });
  };
  const data = {
    train: allTexts(config, await open(config.data, { ...own, split_fractions, limit: train_limit })),
    validation: await held(config.eval_data, 'validation'),
    test: config.final_evaluation === 'test' ? await held(config.test_data, 'test') : undefined,
  };
  checkPattern(config, data.train);
  checkMetric(config, data.validation?.examples);
  return data;
}

/** With a row for each caption of a list, if that is wanted. */
function allTexts({ caption_lists, task }: FitConfig, train: Dataset): Dataset {
  return caption_lists === 'all' ? { ...train, examples: lossRows(train.examples, task) } : train;
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
  open: OpenExamples,
  path: string,
  split: string,
  options: DatasetOptions,
): Promise<Dataset> {
  const splits = await listSplits(path, undefined, options);
  return open(path, { ...options, split: splits.length > 0 ? split : undefined });
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

/** The number of examples per split, for the log, and of rows and pictures where there are not as many. */
export function dataLine(data: FitData): string {
  const parts = (['train', 'validation', 'test'] as const).flatMap((split) => {
    const set = data[split];
    if (!set) return [];
    const { examples, rows, pictures } = countsOf(set.examples);
    return [`${examples.toLocaleString('en')} ${split}${besides(examples, rows, pictures)}`];
  });
  return `data: ${parts.join(', ')}`;
}

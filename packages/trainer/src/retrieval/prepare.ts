/** The settings and the data of a run for retrieval, checked before anything large is loaded. */
import { lossRows, loadProcessor, loadTokenizer, readyDataset } from '@blip2/data-captions';
import type { TextIds } from '@blip2/data-captions';
import { weightBits } from '@blip2/nn';
import { countPreset } from '@blip2/peft-lora';
import { firstStageWeights, wordIds } from '@blip2/retrieval';
import type { RetrievalConfig } from '@blip2/retrieval';
import { loadRetrievalConfig } from '@blip2/retrieval/node';
import { resolveModel } from '@blip2/weights/node';
import type { FitConfig } from '../config';
import { ConfigError, decodingOf, RECALL_METRICS } from '../config';
import { dataLine, loadData } from '../data/open';
import type { ReadyData } from '../data/open';
import type { FitHooks } from '../hooks';
import { RETRIEVAL_BASE, retrievalPreset } from './presets';

/** @throws ConfigError for settings of another kind of model; ModelError, DataError */
export async function prepare(config: FitConfig, hooks: FitHooks) {
  const dir = resolveModel(config.model);
  const sizes = await loadRetrievalConfig(dir);
  checkSettings(config, sizes);
  const { first: bos, last: eos, pad } = wordIds(await loadTokenizer(dir));
  const ids: TextIds = { rows: 'causal', bos, eos, pad, imageToken: undefined, numQueryTokens: 0 };
  const processor = await loadProcessor(dir, ids, decodingOf(config));
  const { max_text_length, task } = config;
  const texts = {
    task,
    max_text_length: Math.min(max_text_length ?? Infinity, sizes.max_position_embeddings),
    truncate: max_text_length !== undefined,
  };
  const found = await loadData(config, hooks, { ...texts, processor });
  hooks.onMessage?.(dataLine(found));
  const [train, validation, test] = [found.train, found.validation, found.test].map(
    (set, i) =>
      set &&
      readyDataset(i === 0 ? set : { ...set, examples: lossRows(set.examples, task) }, processor, texts),
  );
  void test; // its texts have been checked
  const data: ReadyData = { ...found, train: train!, lossRows: validation };
  checkPictures(data);
  return { config, data, processor };
}

function checkSettings(config: FitConfig, sizes: RetrievalConfig): void {
  const { architecture, parts } = sizes;
  if (!(parts.images && parts.texts && parts.matching))
    throw new ConfigError('model', [
      `expected a Blip2ForImageTextRetrieval checkpoint, which reads images and texts, found ${architecture}`,
    ]);
  const preset = retrievalPreset(config);
  countPreset(firstStageWeights(sizes), preset, config.lora, RETRIEVAL_BASE);
  const problems = settingProblems(config);
  if (problems.length > 0) throw new ConfigError('a model for retrieval', problems);
}

/** Settings that a model without a language model cannot have. */
function settingProblems(config: FitConfig): string[] {
  const { max_new_tokens, num_beams, ...generation } = config.generation;
  const { per_device_train_batch_size: batch, metric_for_best_model: metric, precision } = config;
  const metrics = ['eval_loss', ...RECALL_METRICS];
  const generates = [max_new_tokens, ...Object.values(generation)].some((value) => value !== undefined);
  return [
    ...(config.task === 'caption'
      ? []
      : ['task: expected caption, found vqa; it compares pictures with captions and answers no questions']),
    ...(config.prompt === undefined ? [] : ['prompt: leave it out; captions are compared as they are']),
    ...(config.predict_with_generate
      ? ['predict_with_generate: leave it out; it writes no texts, and every evaluation has its recall']
      : []),
    ...(generates || num_beams !== 1 ? ['generation: leave it out; it writes no texts'] : []),
    ...(config.parts_pattern === undefined ? [] : ['parts_pattern: leave it out; it writes no texts']),
    ...(config.label_smoothing_factor === 0
      ? []
      : ['label_smoothing_factor: leave it out; the losses smooth by 0.1, as in LAVIS']),
    ...(metrics.includes(metric)
      ? []
      : [`metric_for_best_model: expected one of ${metrics.join(', ')}, found ${JSON.stringify(metric)}`]),
    ...(weightBits(precision) === undefined
      ? []
      : [`precision: expected float32, bfloat16 or auto, found ${precision}`]),
    ...(batch > 1
      ? []
      : [
          'per_device_train_batch_size: expected at least 2, found 1; a pair is compared with the others of its batch',
        ]),
  ];
}

/** @throws ConfigError for training pairs among which nothing is wrong */
function checkPictures({ train: { path, examples } }: ReadyData): void {
  const differ = (of: (example: (typeof examples)[number]) => unknown) => new Set(examples.map(of)).size > 1;
  if (differ(({ image }) => image) && differ(({ caption }) => caption)) return;
  throw new ConfigError('data', [
    `${path}: expected training rows with at least two pictures and two captions, which are compared with each other`,
  ]);
}

/** Captions, and answers to questions: what `Blip2ForConditionalGeneration` learns. */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { adapterBase, frozenDepth, loss, textIds } from '@blip2/blip2';
import type { Blip2 } from '@blip2/blip2';
import { loadConfig, saveModel } from '@blip2/blip2/node';
import type { Batch } from '@blip2/data-captions';
import { loadProcessor } from '@blip2/data-captions';
import { resolveModel } from '@blip2/weights/node';
import type { FitConfig } from './config';
import { ConfigError, decodingOf, evaluationMetrics, RECALL_METRICS } from './config';
import { batchInput, evaluationBatches, trainingBatches } from './data/batches';
import type { RunBatch } from './data/batches';
import { readyData, textRules } from './data/limits';
import { dataLine, loadData } from './data/open';
import { finalEvaluation, finalTexts } from './evaluation/final';
import type { Finished } from './evaluation/next-step';
import { generatedScores, trainingSamples } from './evaluation/validation';
import { cacheableStage, loadedStage, releaseStage } from './features';
import { makeCache } from './features/run-cache';
import type { WeightHashes } from './features/key';
import { weightHashes } from './features/key';
import { makeHiddenCache } from './features/run-hidden';
import type { FitHooks } from './hooks';
import { openModel } from './model/open';
import { partKeys } from './model/part-keys';
import { runSmoothing } from './model/smoothing';
import type { Kind, Objective, Opening } from './objective';
import { recommendedPresets } from './plan/advice';
import { frozenBy } from './plan/layers';
import { saveTrained } from './run/result';
import type { Opened } from './stages';
import { fromFirst } from './train/world';

export interface Captioning extends Kind {
  model: Blip2;
  batch: RunBatch;
  /** a text for each example */
  before: string[];
}

export const captioning: Objective<Captioning> = {
  prepare,
  shaping: frozenLayers,
  load: async (run, hooks) => {
    const smoothing = await runSmoothing(run, run.resumeFrom, hooks);
    const opened = await openModel(run.config, hooks, smoothing);
    return { ...opened, smoothing, hashes: await sharedHashes(run, opened) };
  },
  caches: async (run, hooks, held) => {
    const stage = stageOf(run);
    const cache = await makeCache(run, stage, hooks, held);
    if (cache && stage) releaseStage(run.model, stage.name);
    return { cache, hidden: await makeHiddenCache(run, cache, hooks.onMessage ?? (() => undefined), held) };
  },
  trainingBatches: (run, epoch, first) =>
    trainingBatches(run, epoch, first, run.config.group_captions === 'auto'),
  evaluationBatches,
  size: (batch) => ({ tokens: labelled(batch), images: batch.examples.length }),
  loss: (run, batch, { key, ...o }) =>
    loss(run.model, batchInput(run, batch), batch, {
      ...o,
      dropout: key && partKeys(key, run.trainables.keys()),
      frozen_layers: frozenDepth(run.model.config, run.trainables.keys()),
    }),
  scores: generatedScores,
  samples: trainingSamples,
  before: (run, hooks) => finalTexts(run, hooks, 'captioning before training'),
  final: finalEvaluation,
  save: (run) =>
    saveTrained(run, adapterBase(run.model.config).ties, (folder) =>
      saveModel(run.model, folder, { copyFrom: resolveModel(run.config.model) }),
    ),
  recommended: ({ model, data }) =>
    recommendedPresets({ rows: data.train.examples.length, width: model.config.text_config.hidden_size })
      .order[0],
  tryIt,
};

const stageOf = ({ model, trainables }: Pick<Opened, 'model' | 'trainables'>) => {
  const name = cacheableStage(model.config, trainables.keys());
  return name && loadedStage(model, name);
};

/** Hashing gigabytes is left to rank 0. A single process does it when it needs to. */
async function sharedHashes(
  { config, world }: Opening<Captioning>,
  opened: Pick<Opened, 'model' | 'trainables'>,
): Promise<WeightHashes | undefined> {
  if (world.size === 1 || !config.cache_features) return undefined;
  const depth = frozenDepth(opened.model.config, opened.trainables.keys());
  return fromFirst(world, () =>
    weightHashes(resolve(resolveModel(config.model)), stageOf(opened), opened.model, depth),
  );
}

async function prepare(given: FitConfig, hooks: FitHooks) {
  const { metric_for_best_model: metric } = given;
  if (RECALL_METRICS.includes(metric))
    throw new ConfigError('metric_for_best_model', [
      `${metric} is the recall of a model for retrieval; expected one of ${evaluationMetrics(given).join(', ')}`,
    ]);
  const dir = resolveModel(given.model);
  const sizes = await loadConfig(dir);
  const processor = await loadProcessor(dir, textIds(sizes), decodingOf(given));
  const texts = textRules(given, processor, sizes);
  const { prompt } = texts;
  const config = { ...given, ...(prompt !== undefined && { prompt }) };
  const found = await loadData(config, hooks, texts);
  hooks.onMessage?.(dataLine(found));
  return { config, data: readyData(found, config, texts, sizes, hooks), processor };
}

/** Earlier versions had dropout in these layers. */
async function frozenLayers(config: FitConfig): Promise<{ frozen_layers?: number }> {
  const sizes = await loadConfig(resolveModel(config.model));
  const frozen_layers = frozenBy(sizes, config);
  return frozen_layers > 0 ? { frozen_layers } : {};
}

/** Number of tokens in the loss. */
function labelled({ labels }: Batch): number {
  return labels.reduce((count, label) => count + (label >= 0 ? 1 : 0), 0);
}

/** Describes a held-out picture, or for pictures inside an archive scores the data. */
function tryIt({ config, example, weights }: Finished): string[] {
  const { task, prompt, data } = config;
  const words = prompt === undefined ? [] : ['--prompt', prompt];
  if (!existsSync(example.image)) return ['evaluate', ...weights, '--data', data, ...words];
  if (task === 'caption') return ['caption', example.image, ...weights, ...words];
  return ['answer', example.image, '--question', example.question ?? 'what is this?', ...weights, ...words];
}

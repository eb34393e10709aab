/** Image-text retrieval: what `Blip2ForImageTextRetrieval` learns, by BLIP-2's first stage. */
import { existsSync } from 'node:fs';
import { firstStageLoss, imageStage } from '@blip2/retrieval';
import { saveRetrievalModel } from '@blip2/retrieval/node';
import { fold } from '@blip2/nn';
import { resolveModel } from '@blip2/weights/node';
import { ConfigError } from '../config';
import type { Finished } from '../evaluation/next-step';
import { makeCache } from '../features/run-cache';
import type { Objective } from '../objective';
import { saveTrained } from '../run/result';
import type { Opened } from '../stages';
import { evaluationPairs, pairsOf, trainingPairs } from './batches';
import { finalRecall, recallScores, nearestTexts, similaritiesOf } from './evaluation';
import { loadTrained } from './load';
import type { Retrieval } from './kind';
import { prepare } from './prepare';
import { RETRIEVAL_PRESET } from './presets';

export const retrieval: Objective<Retrieval> = {
  prepare,
  shaping: async (_, processes) => {
    if (processes > 1)
      throw new ConfigError('a model for retrieval', [
        `trains in one process, because pairs are compared with all others of a batch; found ${processes}`,
      ]);
    return { objective: 'retrieval' };
  },
  load: loadTrained,
  caches: async (run, hooks, held) => ({ cache: await makeCache(run, frozenTower(run), hooks, held) }),
  trainingBatches: trainingPairs,
  evaluationBatches: evaluationPairs,
  size: ({ examples }) => ({ tokens: examples.length, images: examples.length }),
  loss: (run, batch, { key, checkpoint, tap }) => {
    const { model, trainables } = run;
    const dropout = key && trains(trainables, 'qformer') ? fold(key, 'qformer') : undefined;
    const pairs = { ...pairsOf(run, batch), negatives: batch.negatives };
    const { first_stage } = model.params;
    return firstStageLoss(model, first_stage, { ...pairs, start: model.start }, { dropout, checkpoint, tap });
  },
  scores: recallScores,
  samples: nearestTexts,
  before: async (run, hooks) =>
    run.final && (await similaritiesOf(run, run.final.dataset.examples, hooks, 'comparing before training')),
  final: finalRecall,
  save: (run) => {
    const model = { ...run.model, params: { ...run.model.params, first_stage: undefined } };
    return saveTrained({ ...run, model }, [], (folder) =>
      saveRetrievalModel(model, folder, { copyFrom: resolveModel(run.config.model) }),
    );
  },
  recommended: () => RETRIEVAL_PRESET,
  tryIt,
};

const trains = (trainables: ReadonlyMap<string, unknown>, part: string) =>
  [...trainables.keys()].some((name) => name.startsWith(`${part}.`));

/** The vision tower as a stage, if nothing of it trains. */
function frozenTower({ model, trainables }: Opened<Retrieval>) {
  if (trains(trainables, 'vision_model')) return undefined;
  const { run, ...stage } = imageStage(model.config);
  return { ...stage, run: (pixel_values: Parameters<typeof run>[1]) => run(model, pixel_values) };
}

/** Compares a held-out picture with its caption and another text, or for pictures inside an archive scores the data. */
function tryIt({ config, example, weights }: Finished): string[] {
  if (!existsSync(example.image)) return ['evaluate', ...weights, '--data', config.data];
  return ['match', example.image, '--text', example.caption ?? '', 'something else', ...weights];
}

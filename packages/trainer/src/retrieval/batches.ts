/** The batches of a run for retrieval: pairs, with wrong ones that look right to the model as it is now. */
import type { ReadyDataset } from '@blip2/data-captions';
import { dispose, fold, gatherRows, rngKey, tensor, tidy } from '@blip2/nn';
import type { Key, Tensor3D, Tensor4D } from '@blip2/nn';
import { drawNegatives, imageTokens, togetherOf } from '@blip2/retrieval';
import type { Pairs } from '@blip2/retrieval';
import type { RunBatch } from '../data/batches';
import { evaluationBatches, trainingBatches } from '../data/batches';
import type { Cached } from '../stages';
import type { PairBatch, Retrieval } from './kind';

type Run = Cached<Retrieval>;

/** Rows of one picture are not kept together: they would be no wrong pairs for each other. */
export function trainingPairs(run: Run, epoch: number, first: number): AsyncIterable<PairBatch> {
  const key = fold(fold(rngKey(run.config.seed), 'negatives'), epoch);
  return withNegatives(run, trainingBatches(run, epoch, first, false), key, first);
}

export function evaluationPairs(run: Run, dataset: ReadyDataset): AsyncIterable<PairBatch> {
  const key = fold(rngKey(run.config.seed), 'negatives of an evaluation');
  return withNegatives(run, evaluationBatches(run, dataset), key, 0);
}

/** Each batch is drawn when it is asked for: after the update before it, and before that of its group. */
async function* withNegatives(
  run: Run,
  made: AsyncIterable<RunBatch>,
  key: Key,
  first: number,
): AsyncGenerator<PairBatch, void, undefined> {
  let number = first;
  for await (const one of made) {
    const batch = await withFeatures(run, one);
    const pairs = pairsOf(run, batch);
    const { first_stage } = run.model.params;
    const drawn = drawNegatives(run.model, first_stage, pairs, fold(key, number++));
    const negatives = await drawn.finally(() => dispose(pairs.tokens));
    yield { ...batch, negatives };
  }
}

/** Without a cache, what a frozen tower makes of the pictures, once for negatives and loss. */
async function withFeatures(run: Run, batch: RunBatch): Promise<RunBatch> {
  const trained = [...run.trainables.keys()].some((name) => name.startsWith('vision_model.'));
  if (batch.features || trained) return batch;
  const tokens = tidy(() => imageTokens(run.model, pixelsOf(batch)));
  const features = (await tokens.data()) as Float32Array;
  dispose(tokens);
  return { ...batch, features };
}

const pixelsOf = ({ pixel_values, images, imageShape }: RunBatch) =>
  tensor<Tensor4D>(pixel_values!, [images.length, ...imageShape]);

/** The pairs of a batch, with the image tokens of each row [B, N, E]. */
export function pairsOf({ model }: Pick<Run, 'model'>, batch: RunBatch): Pairs {
  const { features, images, pictures, examples } = batch;
  const E = model.config.vision_config.hidden_size;
  const tokens = tidy(() => {
    const P = images.length; // different pictures
    const found = features
      ? tensor<Tensor3D>(features, [P, features.length / (P * E), E])
      : imageTokens(model, pixelsOf(batch));
    return gatherRows(found, pictures);
  });
  const together = togetherOf(
    examples.map(({ image }) => image),
    batch,
  );
  return { tokens, rows: batch, together };
}

/**
 * BLIP-2's first stage, which trains a model for retrieval: its three losses together, and what it trains beside the model and
 * checkpoints of transformers do not have: the temperature, and the head that predicts words. Reference: LAVIS,
 * models/blip2_models/blip2_qformer.py. B images with one text each.
 */
import {
  add,
  concat,
  dispose,
  fold,
  isTrainable,
  layerNormShapes,
  linearShapes,
  normal,
  reshape,
  rngKey,
  site,
  tensor,
  tidy,
  zeros,
} from '@blip2/nn';
import type { Key, Scalar, StageOptions, Tensor1D, Tensor3D, WeightTable } from '@blip2/nn';
import type { RetrievalConfig } from './config';
import { contrastiveLoss, generationLoss, hardNegatives, matchingLoss } from './losses';
import type { Negatives, Together, WordHead } from './losses';
import { embedImages, embedTexts, retrievalWeights, similarity } from './model';
import type { RetrievalModel, TextRows } from './model';

/** Named as LAVIS's, but for BERT's `cls.predictions`. The decoder is the table of words. */
export interface FirstStage {
  temperature: Scalar;
  transform: WordHead['transform'];
  bias: Tensor1D; // [V]
}

const TEMPERATURE = 0.07;
/** As ALBEF and BLIP keep it; LAVIS's BLIP-2 has no bounds. */
const BOUNDS = [0.001, 0.5] as const;
/** BERT's `initializer_range`. */
const DEVIATION = 0.02;

/** Before training: temperature 0.07, and a head as BERT's is initialised. */
export function initFirstStage(
  { qformer_config: { hidden_size: D }, vocab_size }: RetrievalConfig,
  seed: number,
): FirstStage {
  const drawn = normal(fold(rngKey(seed), 'word head'), D * D).map((x) => DEVIATION * x);
  return {
    temperature: tensor<Scalar>([TEMPERATURE], []),
    transform: {
      dense: { weight: tensor(drawn, [D, D]), bias: zeros([D]) },
      LayerNorm: { weight: tensor(new Float32Array(D).fill(1), [D]), bias: zeros([D]) },
    },
    bias: zeros([vocab_size]),
  };
}

/** The model's tensors with those that the first stage trains beside it, under `first_stage.`. */
export function firstStageWeights(config: RetrievalConfig): WeightTable {
  const { hidden_size: D } = config.qformer_config;
  return [
    ...retrievalWeights(config),
    ['first_stage.temperature', []],
    ...linearShapes('first_stage.transform.dense', D, D),
    ...layerNormShapes('first_stage.transform.LayerNorm', D),
    ['first_stage.bias', [config.vocab_size]],
  ];
}

/** A batch of pairs: image tokens [B, N, E], and what belongs together. */
export interface Pairs {
  tokens: Tensor3D;
  rows: TextRows;
  together: Together;
}

/** Pairs of one image, or of one text, belong together. @param images a number or name for each pair's image */
export function togetherOf(
  images: ArrayLike<number | string>,
  { input_ids, shape: [B, T] }: TextRows,
): Together {
  const sameText = (a: number, b: number) =>
    Array.from({ length: T }, (_, t) => input_ids[a * T + t] === input_ids[b * T + t]).every(Boolean);
  return Uint8Array.from({ length: B * B }, (_, i) => {
    const [a, b] = [Math.floor(i / B), i % B];
    return Number(images[a] === images[b] || sameText(a, b));
  });
}

/**
 * Draws the wrong pairs of a batch, by similarities as in evaluation: without dropout. A temperature that has left 0.001 … 0.5 is set
 * back to the bound.
 */
export async function drawNegatives(
  model: RetrievalModel,
  { temperature }: FirstStage,
  { tokens, rows, together }: Pairs,
  key: Key,
): Promise<Negatives> {
  const read = tidy(() => {
    const found = similarity(embedImages(model, tokens), embedTexts(model, rows));
    return concat([reshape(temperature, [1]), reshape(found, [found.size])], 0);
  });
  const [now, ...similarities] = (await read.data()) as Float32Array;
  dispose(read);
  const bounded = Math.min(BOUNDS[1], Math.max(BOUNDS[0], now));
  if (bounded !== now && isTrainable(temperature)) {
    const value = tensor<Scalar>([bounded], []);
    temperature.assign(value);
    dispose(value);
  }
  return hardNegatives(Float32Array.from(similarities), bounded, key, together);
}

/** The sum of the three losses. `start`: see `generationLoss` */
export function firstStageLoss(
  model: RetrievalModel,
  { temperature, transform, bias }: FirstStage,
  { tokens, rows, negatives, start }: Omit<Pairs, 'together'> & { negatives: Negatives; start: number },
  o: StageOptions = {},
): Scalar {
  const pass = (name: string) => ({ ...o, dropout: site(o.dropout, name) });
  const { weight } = model.params.embeddings!.word_embeddings;
  return tidy(() => {
    const images = embedImages(model, tokens, pass('images'));
    const texts = embedTexts(model, rows, pass('texts'));
    const contrastive = contrastiveLoss(images, texts, temperature);
    const matching = matchingLoss(model, tokens, rows, negatives, pass('matching'));
    const head = { transform, decoder: { weight, bias } };
    const generation = generationLoss(model, head, { tokens, rows, start }, pass('generation'));
    return add(contrastive, add(matching, generation));
  });
}

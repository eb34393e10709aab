/**
 * The text model's output layer in 8 bits, beside the exact one, for the precisions int8 and int4. Texts are written with it: the exact one
 * is a tenth (int8) or a sixth (int4) of what each token reads from memory. Losses and their gradients use the exact one: of a gradient at its
 * output, most numbers are small beside the largest of their row, and 8 bits would lose them.
 */
import { columnMaxima, dispose, storedTensor } from '@blip2/nn';
import type { StoredWeight, Tensor2D } from '@blip2/nn';
import { floorOf } from './column-floor';
import type { Blip2Config } from './config';
import { LANGUAGE_MODEL, languageModel } from './language-model';
import { roundedWeight } from './load';
import type { Blip2 } from './model';
import { tiesOf } from './ties';

/** Its name among the rounded weights. */
export const OUTPUT_LAYER = 'output_layer';

export interface OutputLayer {
  /** The exact weight [V, D], which belongs to the model's parameters. */
  exact: Tensor2D;
  rounded: Tensor2D;
}

/** The name of the exact weight in a checkpoint. */
export function outputLayerName(config: Blip2Config): string {
  const head = `${LANGUAGE_MODEL}lm_head.weight`;
  return tiesOf(config).find(({ alias }) => alias === head)?.tensor ?? head;
}

/** The weight in 8 bits; a column with large numbers in many rows leaves the others as exact as they would be without it. */
export async function roundedOutputLayer(weight: StoredWeight): Promise<StoredWeight> {
  const stored = storedTensor(weight, 1)!;
  const maxima = columnMaxima(stored);
  const most = (await maxima.data()) as Float32Array;
  dispose([stored, maxima]);
  const least = floorOf(most);
  const factors = least > 0 ? most.map((value) => Math.max(value, least)) : undefined;
  return roundedWeight(weight, factors, 8);
}

/** The model with which texts are written. An output layer that was trained, adapted or replaced is used as it is. */
export function writingModel(model: Blip2): Blip2 {
  const { config, params, output_layer } = model;
  if (!output_layer) return model;
  const { weight, lora } = languageModel(config).head(params.language_model);
  if (lora || weight !== output_layer.exact) return model;
  const lm_head = { weight: output_layer.rounded };
  return { config, params: { ...params, language_model: { ...params.language_model, lm_head } } };
}

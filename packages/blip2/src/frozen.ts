/**
 * The layers of the text model below everything that trains. They run as in evaluation, so that what they compute is the same at every
 * step, and can be kept for each picture and each text of it. N packed positions, Dt width of the text model.
 */
import { flatten, part } from '@blip2/nn';
import type { Tensor2D } from '@blip2/nn';
import type { Blip2Config } from './config';
import { LANGUAGE_MODEL, languageModel } from './language-model';
import type { Blip2 } from './model';

/** Whether the input of layer `depth` of the text model depends on a tensor, by its whole name. */
export function isBelow(config: Blip2Config, name: string, depth: number): boolean {
  return layersBefore(config, name) < depth;
}

/**
 * How many layers of the text model run before anything that trains: 0 if they cannot be told apart from it, or if the image's rows depend
 * on more than the picture.
 */
export function frozenDepth(config: Blip2Config, trainables: Iterable<string>): number {
  if (!languageModel(config).below || config.qformer_config.use_qformer_text_input) return 0;
  const { num_hidden_layers } = config.text_config;
  return Math.min(num_hidden_layers - 1, ...[...trainables].map((name) => layersBefore(config, name)));
}

function layersBefore(config: Blip2Config, name: string): number {
  if (!name.startsWith(LANGUAGE_MODEL)) return 0;
  const { below } = languageModel(config);
  return below?.layersBefore(config.text_config, name.slice(LANGUAGE_MODEL.length)) ?? 0;
}

/** Runs `f`, which computes the input of layer `depth`. Intermediate results are freed at once unless something in there trains. */
export function belowDepth({ params, config }: Blip2, depth: number, f: () => Tensor2D): Tensor2D {
  const lower = [...flatten(params)].filter(([name]) => isBelow(config, name, depth));
  return part(Object.fromEntries(lower), f);
}

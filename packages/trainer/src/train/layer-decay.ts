/**
 * Layer-wise learning-rate decay of the vision tower, as in LAVIS (`Blip2Base.get_optimizer_params`, `lr_layer_decay`): the
 * rate of a layer is the run's rate × decay^(number of layers above it + 1); embeddings lie below the first layer, the final
 * norm counts as the last layer, and everything outside the vision tower keeps the run's rate.
 */

import { ConfigError, NO_TOWER } from '../config';

const TOWER = 'vision_model.';

/** @throws ConfigError when no tensor of the vision tower trains */
export function checkLayerDecay(decay: number, trainables: Iterable<string>): void {
  if (decay === 1 || [...trainables].some((name) => name.startsWith(TOWER))) return;
  throw new ConfigError('lr_layer_decay', [NO_TOWER]);
}

/** Factors on the learning rate, by tensor name. @param layers of the vision tower */
export function layerScale(decay: number, layers: number): (name: string) => number {
  return (name) => {
    if (!name.startsWith(TOWER)) return 1;
    return decay ** (layers + 1 - layerId(name, layers));
  };
}

function layerId(name: string, layers: number): number {
  if (name.startsWith('vision_model.embeddings.')) return 0;
  const layer = /^vision_model\.encoder\.layers\.(\d+)\./.exec(name)?.[1];
  return layer === undefined ? layers : Number(layer) + 1;
}

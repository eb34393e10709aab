/** Loading the base and choosing what trains. */
import type { Blip2 } from '@blip2/blip2';
import { adapterBase } from '@blip2/blip2';
import { loadFolder } from '@blip2/blip2/node';
import { countParameters, dispose, flatten } from '@blip2/nn';
import type { Prepared } from '@blip2/peft-lora';
import { applyPreset, presetOf, trainableLine } from '@blip2/peft-lora';
import { resolveModel } from '@blip2/weights/node';
import type { FitConfig } from '../config';
import type { WorkHooks } from '../hooks';
import type { Opened } from '../stages';
import { checkLayerDecay } from '../train/layer-decay';

type OpenModel = Pick<Opened, 'model' | 'adapter' | 'trainables' | 'line'>;

/** Loads the base and applies preset and also_train. @throws ConfigError, WeightsError, ModelError, AdapterError */
export async function openModel(config: FitConfig, hooks: WorkHooks): Promise<OpenModel> {
  const base = await loadFolder(resolveModel(config.model), {
    onProgress: ({ loaded, total }) => hooks.onPhase?.({ name: 'loading model', done: loaded, total }),
  });
  let { params } = base;
  try {
    const prepared = prepare(base, config);
    const { adapter, trainables } = prepared;
    params = prepared.params;
    checkLayerDecay(config.lr_layer_decay, trainables.keys());
    const line = trainableLine(countParameters(trainables.values()), countParameters(params));
    hooks.onMessage?.(line);
    return { model: { config: base.config, params }, adapter, trainables, line };
  } catch (error) {
    dispose(params);
    throw error;
  }
}

/** Frees the tensors that Variables replaced: they would be a second copy of every trained weight. */
function prepare(base: Blip2, config: FitConfig): Prepared<Blip2['params']> {
  const { lora, patterns } = presetOf(config.preset);
  const preset = { lora, patterns: [...patterns, ...(config.also_train ?? [])] };
  const prepared = applyPreset(base.params, preset, config.lora, config.seed, adapterBase(base.config));
  const kept = new Set(flatten(prepared.params).values());
  for (const leaf of flatten(base.params).values()) if (!kept.has(leaf)) dispose(leaf);
  return prepared;
}

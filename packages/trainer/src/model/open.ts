/** Loading the base and choosing what trains. */
import type { Blip2, Smoothing } from '@blip2/blip2';
import { adapterBase, blip2Weights } from '@blip2/blip2';
import { loadConfig, loadFolder } from '@blip2/blip2/node';
import type { Int8FileOptions } from '@blip2/blip2/node';
import { countParameters, dispose, flatten, weightBits } from '@blip2/nn';
import type { AdapterBase, Prepared, Preset } from '@blip2/peft-lora';
import { applyPreset, countPreset, presetOf, trainableLine } from '@blip2/peft-lora';
import { resolveModel } from '@blip2/weights/node';
import type { FitConfig } from '../config';
import { defaultCacheDir } from '../features/store';
import type { WorkHooks } from '../hooks';
import type { Opened } from '../stages';
import { checkLayerDecay } from '../train/layer-decay';
import { exactLine } from './smoothing';
import { initialValues, openStart } from './start-adapter';

type OpenModel = Pick<Opened, 'model' | 'adapter' | 'trainables' | 'line'>;

/** Loads the base and applies preset and also_train. @throws ConfigError, WeightsError, ModelError, AdapterError */
export async function openModel(
  config: FitConfig,
  hooks: WorkHooks,
  smoothing?: Smoothing,
): Promise<OpenModel> {
  const start = await openStart(config, hooks.onMessage ?? (() => undefined));
  const dir = resolveModel(config.model);
  const base = await loadFolder(dir, {
    onProgress: ({ loaded, total }) => hooks.onPhase?.({ name: 'loading model', done: loaded, total }),
    int8: weightBits(config.precision) && (await int8Options(dir, config, hooks, smoothing)),
  });
  let { params } = base;
  try {
    const setInitial = start && initialValues(base.params, start, adapterBase(base.config).ties);
    const prepared = prepare(base, config);
    const { adapter, trainables } = prepared;
    params = prepared.params;
    setInitial?.(trainables);
    checkLayerDecay(config.lr_layer_decay, trainables.keys());
    const line = trainableLine(countParameters(trainables.values()), countParameters(params));
    hooks.onMessage?.(line);
    return { model: { ...base, params }, adapter, trainables, line };
  } catch (error) {
    dispose({ ...base, params });
    throw error;
  }
}

/** What trains keeps its exact values. */
async function int8Options(
  dir: string,
  config: FitConfig,
  hooks: WorkHooks,
  smoothing: Smoothing | undefined,
): Promise<Int8FileOptions> {
  const { lora, patterns } = presetOf(config.preset);
  const preset = { lora, patterns: [...patterns, ...(config.also_train ?? [])] };
  const sizes = await loadConfig(dir);
  const trained = countPreset(blip2Weights(sizes), preset, config.lora, adapterBase(sizes));
  const names = new Set(trained.names);
  const exact = smoothing && exactLine(smoothing);
  if (exact) hooks.onMessage?.(exact);
  return {
    keep: (name) => names.has(name),
    smoothing,
    text_bits: weightBits(config.precision),
    cache_dir: config.cache_dir ?? defaultCacheDir(),
    onMessage: hooks.onMessage,
    onProgress: (done, total) =>
      hooks.onPhase?.({ name: `rounding weights to ${config.precision}`, done, total }),
  };
}

function prepare(base: Blip2, config: FitConfig): Prepared<Blip2['params']> {
  const { lora, patterns } = presetOf(config.preset);
  const preset = { lora, patterns: [...patterns, ...(config.also_train ?? [])] };
  return prepareTree(base.params, preset, config, adapterBase(base.config));
}

/** Applies the preset, and frees the tensors that Variables replaced: they would be a second copy of every trained weight. */
export function prepareTree<T extends object>(
  tree: T,
  preset: Preset,
  { lora, seed }: FitConfig,
  base: AdapterBase,
): Prepared<T> {
  const prepared = applyPreset(tree, preset, lora, seed, base);
  const kept = new Set(flatten(prepared.params).values());
  for (const leaf of flatten(tree).values()) if (!kept.has(leaf)) dispose(leaf);
  return prepared;
}

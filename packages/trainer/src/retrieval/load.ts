/** The model for retrieval, with what trains in it. */
import { loadTokenizer } from '@blip2/data-captions';
import { countParameters, dispose } from '@blip2/nn';
import { trainableLine } from '@blip2/peft-lora';
import { initFirstStage, wordIds } from '@blip2/retrieval';
import { loadRetrievalModel } from '@blip2/retrieval/node';
import { resolveModel } from '@blip2/weights/node';
import type { FitHooks } from '../hooks';
import { prepareTree } from '../model/open';
import { initialValues, openStart } from '../model/start-adapter';
import type { Loaded, Opening } from '../objective';
import { checkLayerDecay } from '../train/layer-decay';
import type { Retrieval } from './kind';
import { RETRIEVAL_BASE, retrievalPreset } from './presets';

/** @throws ConfigError, WeightsError, ModelError, AdapterError */
export async function loadTrained(
  { config }: Opening<Retrieval>,
  hooks: FitHooks,
): Promise<Loaded<Retrieval>> {
  const start = await openStart(config, hooks.onMessage ?? (() => undefined));
  const dir = resolveModel(config.model);
  const base = await loadRetrievalModel(dir, {
    onProgress: ({ loaded, total }) => hooks.onPhase?.({ name: 'loading model', done: loaded, total }),
  });
  let params = { ...base.params, first_stage: initFirstStage(base.config, config.seed) };
  try {
    const setInitial = start && initialValues(base.params, start, RETRIEVAL_BASE.ties);
    const prepared = prepareTree(params, retrievalPreset(config), config, RETRIEVAL_BASE);
    params = prepared.params;
    const { adapter, trainables } = prepared;
    setInitial?.(trainables);
    checkLayerDecay(config.lr_layer_decay, trainables.keys());
    const line = trainableLine(countParameters(trainables.values()), countParameters(params));
    hooks.onMessage?.(line);
    const { start: begin } = wordIds(await loadTokenizer(dir));
    return { model: { config: base.config, params, start: begin }, adapter, trainables, line };
  } catch (error) {
    dispose(params);
    throw error;
  }
}

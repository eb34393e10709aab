/** Plans of runs: what each preset takes of memory, disk and time, and whether it fits. */
import { textIds } from '@blip2/blip2';
import type { Blip2Config } from '@blip2/blip2';
import { imageBytes, loadProcessor } from '@blip2/data-captions';
import { useBackend } from '@blip2/nn/node';
import { isRetrievalFolder } from '@blip2/retrieval/node';
import { resolveModel } from '@blip2/weights/node';
import type { FitConfig } from '../config';
import { decodingOf } from '../config';
import { readyData, textRules } from '../data/limits';
import { loadData } from '../data/open';
import type { WorkHooks } from '../hooks';
import type { Planned } from '../stages';
import type { ModelFacts, PlanFacts } from './facts';
import { isSmall } from './calibrate';
import { calibrate, NONE, processBytes } from './measure';
import type { PresetName } from '@blip2/peft-lora';
import { frozenBy, trainedBy } from './layers';
import { clusterPlan } from './nodes';
import type { Cluster, ClusterPlan } from './nodes';
import { planOf, presetPlan } from './plan';
import type { Plan, PresetPlan } from './plan';
import { retrievalPlans } from '../retrieval/plan';
import { prepare } from '../retrieval/prepare';
import { retrievalPreset } from '../retrieval/presets';
import { dataFacts, HASHED, hasTokenizer, machineFacts, modelFacts } from './read-facts';

export type { Calibration, DataFacts, MachineFacts, ModelFacts, PlanFacts, StepCost } from './facts';
export type { MemoryParts } from './memory';
export type { CachePlan, DiskParts } from './disk';
export type { TimeParts } from './time';
export type { Fits, Plan, PresetPlan } from './plan';
export type { CaptionsPlan, Cluster, ClusterPlan, NodesPlan } from './nodes';
export { duration, gigabytes, planOf, presetPlan } from './plan';

/** Pictures that are read for their time. */
const PICTURES = 16;

/** Presets that cannot have the settings of the others, such as a pattern of tensors that train already. */
export interface LeftOut {
  preset: PresetName;
  why: string;
}

/**
 * One row per config, and where presets are compared one for LoRA in the upper layers. The data are read, kernels are timed; the model's weights are not loaded, and nothing is written.
 * @param given complete configs, with the same model, data and backend
 * @param options `memory`: bytes of another machine's memory. `wanted`: the preset whose settings must be right; others that cannot
 *   have them are left out; default: all. Models for retrieval train on one node, and have no plan of a cluster
 * @throws as `fit` for a model or data that cannot be used
 */
export async function makePlan(
  given: readonly [FitConfig, ...FitConfig[]],
  { memory, wanted, cluster, ...hooks }: WorkHooks & PlanOptions = {},
): Promise<Plan & { left_out: LeftOut[]; cluster?: ClusterPlan }> {
  if (isRetrieval(given[0])) return retrievalPlan(given, { memory, wanted, ...hooks });
  const [config] = given;
  const begin = performance.now();
  const model = await modelFacts(config.model);
  const { configs, left_out } = possible(model, given, wanted);
  const processor = hasTokenizer(config.model)
    ? await loadProcessor(resolveModel(config.model), textIds(model.config), decodingOf(config))
    : undefined;
  const texts = processor && textRules(config, processor, model.config);
  const found = await loadData(config, hooks, texts);
  const ready = texts ? readyData(found, config, texts, model.config, hooks) : found;
  const data = await dataFacts(ready, config, processor, HASHED);
  const machine = await machineFacts(
    await useBackend(config.backend, { precision: config.precision }),
    config,
    memory,
  );
  const pictures = somePictures(found.train);
  const known = { model, data: { ...data, picture_bytes: await meanBytes(pictures) }, machine };
  const starting = (performance.now() - begin) / 1000;
  const sources = { pictures, processor, starting, weights: model.file, hooks };
  const measured = await calibrate(known, configs, sources);
  const facts = { ...known, measured };
  const plan = planOf(facts, configs);
  return { ...plan, left_out, ...(cluster && { cluster: onCluster(facts, configs, plan, cluster) }) };
}

export interface PlanOptions {
  memory?: number;
  wanted?: PresetName;
  /** also plans the recommended run, or the first one, on several nodes */
  cluster?: Cluster;
}

function onCluster(
  facts: PlanFacts,
  configs: readonly FitConfig[],
  { presets }: Plan,
  cluster: Cluster,
): ClusterPlan | undefined {
  const best = Math.max(
    0,
    presets.findIndex(({ recommended }) => recommended !== undefined),
  );
  return clusterPlan(facts, configs[best], presets[best].name, cluster);
}

async function meanBytes(pictures: string[]): Promise<number | undefined> {
  const sizes = (await Promise.all(pictures.map(imageBytes))).filter((size) => size !== undefined);
  return sizes.length === 0 ? undefined : sizes.reduce((sum, size) => sum + size, 0) / sizes.length;
}

/** One in so many layers trains in the plan's own row, and at least two: what was measured is two of four. */
const UPPER = 4;

/** Where presets are compared, also LoRA in the upper layers alone, after LoRA in all; a user's choice of layers is kept. */
function withUpperLayers(model: Blip2Config, configs: readonly FitConfig[]): readonly FitConfig[] {
  const { num_hidden_layers: L } = model.text_config;
  const upper = Math.max(2, Math.floor(L / UPPER));
  if (configs.length === 1 || upper >= L) return configs;
  const layers_to_transform = Array.from({ length: upper }, (_, i) => L - upper + i);
  return configs.flatMap((config) => {
    const { preset, lora } = config;
    if (preset !== 'lora' || !lora || lora.layers_to_transform !== undefined) return [config];
    if (typeof lora.target_modules === 'string') return [config]; // PEFT takes layers with a list of names only
    const other = { ...config, lora: { ...lora, layers_to_transform } };
    return frozenBy(model, other) > 0 ? [config, other] : [config];
  });
}

/** @throws AdapterError, ConfigError for settings of a wanted preset that this model cannot have */
function possible({ config: model }: ModelFacts, given: readonly FitConfig[], wanted?: PresetName) {
  const left_out: LeftOut[] = [];
  const configs = given.filter((config) => {
    try {
      return trainedBy(model, config);
    } catch (error) {
      if (wanted === undefined || config.preset === wanted) throw error;
      left_out.push({ preset: config.preset, why: (error as Error).message });
      return false;
    }
  });
  return { configs: withUpperLayers(model, configs), left_out };
}

/**
 * The plan of a run that is about to start, on the backend that it will use. A large model would take half a minute to time: its
 * plan has no times, and its memory lacks the tensors kept for the backward pass.
 */
export async function planOfRun(
  { config, data, processor }: Planned,
  hooks: WorkHooks = {},
): Promise<PresetPlan> {
  const machine = await machineFacts(
    await useBackend(config.backend, { precision: config.precision }),
    config,
  );
  if (isRetrieval(config)) {
    const facts = { data: await dataFacts(data, config, processor), machine };
    return (await retrievalPlans([config], facts)).presets[0];
  }
  const model = await modelFacts(config.model);
  const known = { model, machine, data: await dataFacts(data, config, processor) };
  const pictures = somePictures(data.train);
  const measured = isSmall(model.config)
    ? await calibrate(known, [config], { pictures, processor, weights: model.file, hooks })
    : { ...NONE, process: processBytes() };
  return presetPlan({ ...known, measured }, config);
}

/** By its folder: a config.json alone is taken as that of a model for captions. */
const isRetrieval = ({ model }: FitConfig) =>
  !model.endsWith('.json') && isRetrievalFolder(resolveModel(model));

async function retrievalPlan(
  given: readonly [FitConfig, ...FitConfig[]],
  { memory, wanted, ...hooks }: WorkHooks & { memory?: number; wanted?: PresetName },
): Promise<Plan & { left_out: LeftOut[] }> {
  const left_out: LeftOut[] = [];
  const configs = given.filter((config) => {
    try {
      return retrievalPreset(config);
    } catch (error) {
      if (wanted === undefined || config.preset === wanted) throw error;
      left_out.push({ preset: config.preset, why: (error as Error).message });
      return false;
    }
  });
  const { config, data: ready, processor } = await prepare(configs[0], hooks);
  const data = await dataFacts(ready, config, processor, HASHED);
  const backend = await useBackend(config.backend, { precision: config.precision });
  const machine = await machineFacts(backend, config, memory);
  const { presets, bytes, dtype } = await retrievalPlans(configs, { data, machine });
  return { presets, facts: { data, machine, model: { bytes, dtype }, measured: NONE }, left_out };
}

const somePictures = ({
  examples,
}: Planned['data']['train'] | { examples: Planned['data']['train']['examples'] }) =>
  examples.slice(0, PICTURES).map(({ image }) => image);

/** Plans of runs: what each preset takes of memory, disk and time, and whether it fits. */
import { textIds } from '@blip2/blip2';
import { loadProcessor } from '@blip2/data-captions';
import { useBackend } from '@blip2/nn/node';
import { resolveModel } from '@blip2/weights/node';
import type { FitConfig } from '../config';
import { decodingOf } from '../config';
import { readyData, textRules } from '../data/limits';
import { loadData } from '../data/open';
import type { WorkHooks } from '../hooks';
import type { Planned } from '../stages';
import { isSmall } from './calibrate';
import { calibrate, NONE } from './measure';
import { planOf, presetPlan } from './plan';
import type { Plan, PresetPlan } from './plan';
import { dataFacts, HASHED, hasTokenizer, machineFacts, modelFacts } from './read-facts';

export type { Calibration, DataFacts, MachineFacts, ModelFacts, PlanFacts, StepCost } from './facts';
export type { MemoryParts } from './memory';
export type { CachePlan, DiskParts } from './disk';
export type { TimeParts } from './time';
export type { Fits, Plan, PresetPlan } from './plan';
export { duration, gigabytes, planOf, presetPlan } from './plan';

/** Pictures that are read for their time. */
const PICTURES = 16;

/**
 * One row per config. The data are read, kernels are timed; the model's weights are not loaded, and nothing is written.
 * @param configs complete, with the same model, data and backend
 * @param o.memory bytes of another machine's memory
 * @throws as `fit` for a model or data that cannot be used
 */
export async function makePlan(
  configs: readonly [FitConfig, ...FitConfig[]],
  { memory, ...hooks }: WorkHooks & { memory?: number } = {},
): Promise<Plan> {
  const [config] = configs;
  const model = await modelFacts(config.model);
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
  const known = { model, data, machine };
  const measured = await calibrate(known, configs, { pictures: somePictures(found.train), processor, hooks });
  return planOf({ ...known, measured }, configs);
}

/**
 * The plan of a run that is about to start, on the backend that it will use. A large model would take half a minute to time: its
 * plan has no times, and its memory lacks the tensors kept for the backward pass.
 */
export async function planOfRun(
  { config, data, processor }: Planned,
  hooks: WorkHooks = {},
): Promise<PresetPlan> {
  const model = await modelFacts(config.model);
  const machine = await machineFacts(
    await useBackend(config.backend, { precision: config.precision }),
    config,
  );
  const known = { model, machine, data: await dataFacts(data, config, processor) };
  const pictures = somePictures(data.train);
  const measured = isSmall(model.config)
    ? await calibrate(known, [config], { pictures, processor, hooks })
    : { ...NONE, process: process.memoryUsage.rss() };
  return presetPlan({ ...known, measured }, config);
}

const somePictures = ({
  examples,
}: Planned['data']['train'] | { examples: Planned['data']['train']['examples'] }) =>
  examples.slice(0, PICTURES).map(({ image }) => image);

/** Facts and measurements together: what `blip2 plan` and the start of `fit` need. */
import { performance } from 'node:perf_hooks';
import type { Processor } from '@blip2/data-captions';
import type { FitConfig } from '../config';
import type { WorkHooks } from '../hooks';
import { generationCost, stageCost, stepCost } from './calibrate';
import type { Known } from './calibrate';
import { cachePlan } from './disk';
import type { Calibration, PlanFacts, StepCost } from './facts';

/** Nothing is timed. */
export const NONE: Calibration = { process: 0, picture: 0, stages: {}, steps: {} };

/** Times the kernels of these configs' presets on the backend that is running: seconds for a full-size model. */
export async function calibrate(
  facts: Omit<PlanFacts, 'measured'>,
  configs: readonly FitConfig[],
  {
    pictures = [],
    processor,
    hooks = {},
  }: { pictures?: readonly string[]; processor?: Processor; hooks?: WorkHooks } = {},
): Promise<Calibration> {
  const measured: Calibration = { ...NONE, process: process.memoryUsage.rss(), stages: {}, steps: {} };
  if (processor) measured.picture = await pictureSeconds(processor, pictures);
  const known: Known = { ...facts, meter: { seconds: 0, processor: 0 } };
  const [first] = configs;
  const jobs = configs.length + 1;
  for (const [i, config] of configs.entries()) {
    hooks.onPhase?.({ name: 'measuring', done: i, total: jobs });
    await new Promise((resolve) => setImmediate(resolve)); // lets signals arrive
    hooks.signal?.throwIfAborted();
    const { stage } = cachePlan({ ...known, measured }, config);
    if (stage) measured.stages[stage] ??= await stageCost(known, stage, timedRows(known));
    measured.steps[config.preset] = await stepCost(known, config);
  }
  if (first && (known.data.final > 0 || first.predict_with_generate))
    measured.generation = await generationCost(known, first);
  hooks.onPhase?.({ name: 'measuring', done: jobs, total: jobs });
  return inSeconds(measured, known.meter.seconds / known.meter.processor);
}

/** Processor time of all threads as time, at the share of the processors that this process has got meanwhile. */
function inSeconds({ stages, steps, generation, ...rest }: Calibration, share: number): Calibration {
  const scaled = <T extends object>(times: T): T =>
    Object.fromEntries(Object.entries(times).map(([name, time]) => [name, (time as number) * share])) as T;
  const step = ({ batch, tape, ...times }: StepCost): StepCost => ({ batch, tape, ...scaled(times) });
  return {
    ...rest,
    stages: scaled(stages),
    steps: Object.fromEntries(Object.entries(steps).map(([preset, cost]) => [preset, step(cost)])),
    generation: generation && { ...scaled(generation), rows: generation.rows },
  };
}

/** Pictures of about a thousand patches, enough for the speed of a large batch. */
function timedRows({ model: { config } }: Pick<PlanFacts, 'model'>): number {
  const { image_size, patch_size } = config.vision_config;
  return Math.max(1, Math.min(16, Math.round(1024 / (image_size / patch_size) ** 2)));
}

/** Seconds to read and normalise a picture, several at a time as in a run. */
async function pictureSeconds(processor: Processor, pictures: readonly string[]): Promise<number> {
  if (pictures.length === 0) return 0;
  const read = () => Promise.all(pictures.map((picture) => processor.pixels(picture)));
  await read();
  const begin = performance.now();
  await read();
  return (performance.now() - begin) / 1000 / pictures.length;
}

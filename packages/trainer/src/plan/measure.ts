/** Facts and measurements together: what `blip2 plan` and the start of `fit` need. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { performance } from 'node:perf_hooks';
import { pipeline } from 'node:stream/promises';
import type { Processor } from '@blip2/data-captions';
import type { FitConfig } from '../config';
import type { WorkHooks } from '../hooks';
import { generationCost, isSmall, stageCost, stepCost } from './calibrate';
import type { Known } from './calibrate';
import { cachePlan } from './disk';
import { runName } from './layers';
import type { Calibration, PlanFacts, StageCost, StepCost } from './facts';
import { presetPlan } from './plan';
import { roundingCost } from './rounding';

/** Nothing is timed. */
export const NONE: Calibration = { process: 0, starting: 0, picture: 0, byte: 0, stages: {}, steps: {} };

/**
 * What the heap, compiled code and the threads' memory grow by during a run. It was 58 MB for the demo and 50 to 90 MB for a full-size
 * model: /proc/self/status less all tensors and mapped weights.
 */
const GROWTH = 60e6;

/** Bytes of Node, the addon, the tokenizer and the texts in a run, from those of this process, which has no tensors yet. */
export const processBytes = () => process.memoryUsage.rss() + GROWTH;

interface Sources {
  pictures?: readonly string[];
  processor?: Processor;
  /** seconds that reading the data took */
  starting?: number;
  /** the largest file of weights */
  weights?: string;
  hooks?: WorkHooks;
}

/**
 * Measures the presets of these configs on the backend that is running: seconds for a full-size model. A preset that does not fit in any
 * case is not measured: it would take the most.
 */
export async function calibrate(
  facts: Omit<PlanFacts, 'measured'>,
  configs: readonly FitConfig[],
  { pictures = [], processor, starting = 0, weights, hooks = {} }: Sources = {},
): Promise<Calibration> {
  const begin = performance.now();
  const measured: Calibration = { ...NONE, starting, process: processBytes(), stages: {}, steps: {} };
  if (processor) measured.picture = await pictureSeconds(processor, pictures);
  measured.byte = await byteSeconds(weights);
  const known: Known = { ...facts, meter: { seconds: 0, fastest: 0 }, units: new Map() };
  const [first] = configs;
  const jobs = configs.length + 1;
  for (const [i, config] of configs.entries()) {
    hooks.onPhase?.({ name: 'measuring', done: i, total: jobs });
    await turn();
    hooks.signal?.throwIfAborted();
    if (presetPlan({ ...facts, measured }, config).fits === 'no') continue;
    const { stage } = cachePlan({ ...known, measured }, config);
    if (stage) measured.stages[stage] ??= await stageCost(known, stage, timedRows(known));
    measured.steps[runName(known.model.config, config)] = await stepCost(known, config);
  }
  if (first && (known.data.final > 0 || known.data.validation > 0))
    measured.generation = await generationCost(known, first);
  measured.rounding = await roundingCost(known);
  hooks.onPhase?.({ name: 'measuring', done: jobs, total: jobs });
  if (isSmall(facts.model.config))
    // `fit` measures its one preset
    measured.starting += (performance.now() - begin) / 1000 / configs.length;
  const { seconds, fastest } = known.meter;
  return atLoad(measured, fastest > 0 ? seconds / fastest : 1);
}

const turn = () => new Promise((resolve) => setImmediate(resolve)); // lets signals arrive

/** Times under the load that other programs put on this machine meanwhile. */
function atLoad({ stages, steps, generation, ...rest }: Calibration, load: number): Calibration {
  const stage = ({ seconds, bytes }: StageCost): StageCost => ({ seconds: seconds * load, bytes });
  const step = ({ below, compute, forward, update, ...cost }: StepCost): StepCost => ({
    ...cost,
    below: below * load,
    compute: compute * load,
    forward: forward * load,
    update: update * load,
  });
  return {
    ...rest,
    stages: mapped(stages, stage),
    steps: mapped(steps, step),
    generation: generation && {
      ...generation,
      prompt: generation.prompt * load,
      token: generation.token * load,
    },
  };
}

const mapped = <T>(record: Partial<Record<string, T>>, f: (value: T) => T) =>
  Object.fromEntries(Object.entries(record).map(([name, value]) => [name, f(value as T)]));

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

/** Enough of a file for its speed, and how often it is read: the first time is slower than the rest of a large file. */
const SAMPLE = 64 << 20;
const TIMES = 4;

/** Seconds for each byte of the checksum of a file. */
async function byteSeconds(file: string | undefined): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < TIMES; i++) {
    const begin = performance.now();
    const hash = createHash('sha256');
    if (file === undefined) hash.update(new Uint8Array(SAMPLE));
    else await pipeline(createReadStream(file, { end: SAMPLE - 1 }), hash);
    times.push((performance.now() - begin) / 1000);
  }
  const bytes = file === undefined ? SAMPLE : Math.min(SAMPLE, (await stat(file)).size);
  return Math.min(...times) / bytes;
}

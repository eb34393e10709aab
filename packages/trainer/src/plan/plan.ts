/** A plan: for each preset what a run would take of memory, disk and time, and whether this machine has it. */
import type { FitConfig } from '../config';
import type { PresetName } from '@blip2/peft-lora';
import { recommendedPresets, PURPOSE, upperPurpose } from './advice';
import { cachePlan, diskOf, keptBytes } from './disk';
import type { CachePlan, DiskParts } from './disk';
import type { PlanFacts } from './facts';
import { runName, trainedBy } from './layers';
import { memoryOf, sum } from './memory';
import type { MemoryParts } from './memory';
import { timeOf } from './time';
import type { TimeParts } from './time';

/** `slow`: it fits only if the system drops mapped weights, which are then read from disk at every step. */
export type Fits = 'yes' | 'slow' | 'no';

export interface PresetPlan {
  preset: PresetName;
  /** the preset, and the upper layers if only they train */
  name: string;
  trains: string;
  when: string;
  /** numbers that train */
  parameters: number;
  memory: MemoryParts & { peak: number };
  disk: DiskParts & { total: number };
  cache: CachePlan;
  /** with features and rounded weights made first, and with those that are there already; undefined if no step could be timed */
  time?: { cold: TimeParts; cached: TimeParts };
  fits: Fits;
  /** why it does not fit, what would make it fit, and settings that would save much time */
  notes: string[];
  /** why this preset is recommended */
  recommended?: string;
}

export interface Plan {
  presets: PresetPlan[];
  facts: Omit<PlanFacts, 'model'> & { model: Omit<PlanFacts['model'], 'config'> };
}

/** Share of the memory that is left to the system and other programs. */
const RESERVED = 0.1;
const MIB = 2 ** 20;

/** @param configs complete; of several with one preset, the first can be recommended */
export function planOf(facts: PlanFacts, configs: readonly FitConfig[]): Plan {
  const rows = configs.map((config) => presetPlan(facts, config));
  const { order, why } = recommendedPresets({
    rows: facts.data.rows,
    width: facts.model.config.text_config.hidden_size,
  });
  const best = order
    .map((name) => rows.find(({ preset }) => preset === name))
    .find((row) => row?.fits === 'yes');
  const reason = best?.preset === order[0] ? why : instead(order[0], rows);
  const { dtype, bytes } = facts.model;
  return {
    presets: rows.map((row) => (row === best && rows.length > 1 ? { ...row, recommended: reason } : row)),
    facts: { ...facts, model: { dtype, bytes } },
  };
}

const instead = (first: PresetName, rows: readonly PresetPlan[]) =>
  `${first} ${rows.some(({ preset }) => preset === first) ? 'does not fit' : 'cannot have these settings'}`;

/** The plan of one run. */
export function presetPlan(facts: PlanFacts, config: FitConfig): PresetPlan {
  const cache = cachePlan(facts, config);
  const memory = memoryFor(facts, config);
  const disk = diskOf(facts, config, cache);
  const time = timesOf(facts, config, cache);
  const fits = fitsIn(facts.machine.memory, memory);
  return {
    preset: config.preset,
    name: runName(facts.model.config, config),
    ...(cache.hidden
      ? upperPurpose(facts.model.config.text_config, cache.hidden.depth, config)
      : PURPOSE[config.preset]),
    parameters: trainedBy(facts.model.config, config).trainable,
    memory,
    disk: { ...disk, total: sum(disk) },
    cache,
    time,
    fits,
    notes: [
      ...memoryNotes(facts, config, memory, fits),
      ...diskNotes(facts, disk),
      ...cacheNotes(facts, config, cache),
    ],
  };
}

function memoryFor(facts: PlanFacts, config: FitConfig): PresetPlan['memory'] {
  const parts = memoryOf(facts, config, keptBytes(cachePlan(facts, config), 'memory'));
  return { ...parts, peak: sum(parts) };
}

function timesOf(facts: PlanFacts, config: FitConfig, cache: CachePlan): PresetPlan['time'] {
  const cold = timeOf(facts, config, cache);
  if (!cold) return undefined;
  const total = cold.total - cold.features - cold.rounding;
  return { cold, cached: { ...cold, features: 0, rounding: 0, total } };
}

export function fitsIn(memory: number, { peak, mapped }: PresetPlan['memory']): Fits {
  const usable = memory * (1 - RESERVED);
  if (peak <= usable) return 'yes';
  return peak - mapped <= usable ? 'slow' : 'no';
}

function memoryNotes(
  facts: PlanFacts,
  config: FitConfig,
  memory: PresetPlan['memory'],
  fits: Fits,
): string[] {
  if (fits === 'yes') return [];
  const has = gigabytes(facts.machine.memory);
  const needs =
    fits === 'slow'
      ? `needs ${gigabytes(memory.peak)} of ${has}: ${gigabytes(memory.mapped)} of that are weights in their file, which would be read from disk again at every step`
      : `needs ${gigabytes(memory.peak)}, of which ${gigabytes(memory.peak - memory.mapped)} cannot be dropped; the machine has ${has}`;
  return [needs, remedy(facts, config)];
}

/** The first change that makes the run fit. */
function remedy(facts: PlanFacts, config: FitConfig): string {
  const size = config.per_device_train_batch_size;
  const fitting = (change: Partial<FitConfig>) =>
    fitsIn(facts.machine.memory, memoryFor(facts, { ...config, ...change })) === 'yes';
  for (let batch = size >> 1; batch >= 1; batch >>= 1) {
    const gradient_accumulation_steps = Math.ceil((config.gradient_accumulation_steps * size) / batch);
    const per_device_eval_batch_size = Math.min(batch, config.per_device_eval_batch_size);
    if (
      fitting({ per_device_train_batch_size: batch, per_device_eval_batch_size, gradient_accumulation_steps })
    )
      return `fits with per_device_train_batch_size=${batch}, per_device_eval_batch_size=${per_device_eval_batch_size} and gradient_accumulation_steps=${gradient_accumulation_steps}, which learns the same`;
  }
  if (fitting({ cache_memory_mb: 0 })) return 'fits with cache_memory_mb=0: features are read from disk';
  const rounded = facts.machine.stores ? roundedFit(facts, config) : undefined;
  if (rounded) return rounded;
  const { peak } = memoryFor(facts, {
    ...config,
    per_device_train_batch_size: 1,
    per_device_eval_batch_size: 1,
    cache_memory_mb: 0,
  });
  return `even a batch of 1 needs ${gigabytes(peak)}: use a machine with ${Math.ceil(peak / (1 - RESERVED) / 1e9)} GB, or a preset that trains less`;
}

/** A precision whose weights fit. */
function roundedFit({ machine, ...facts }: PlanFacts, config: FitConfig): string | undefined {
  const fits = (precision: 'int8' | 'int4') =>
    fitsIn(machine.memory, memoryFor({ ...facts, machine: { ...machine, precision } }, config)) === 'yes';
  if (fits('int8')) return 'fits with precision=int8: frozen weights of 8 bits take half of the memory';
  if (fits('int4')) return 'fits with precision=int4: frozen weights of the text model take 4 bits';
  return undefined;
}

function diskNotes({ machine: { disk: free } }: PlanFacts, disk: DiskParts): string[] {
  const run = disk.checkpoints + disk.result;
  return [
    ...(run <= free.output
      ? []
      : [
          `checkpoints and result take ${gigabytes(run)}, ${gigabytes(free.output)} are free; a smaller save_total_limit takes less`,
        ]),
    ...(disk.rounded === 0 || disk.rounded + disk.features <= free.cache
      ? []
      : [
          `rounded weights${disk.features > 0 ? ' and features' : ''} take ${gigabytes(disk.rounded + disk.features)}, ${gigabytes(free.cache)} are free: unless the weights are there already, every run makes them and keeps them in memory; set cache_dir to a larger disk`,
        ]),
  ];
}

/** What it costs to have no cache, and the setting that brings it back. */
function cacheNotes(facts: PlanFacts, config: FitConfig, { stage, bytes, why }: CachePlan): string[] {
  if (!stage || !why) return [];
  const limit = Math.ceil(bytes / MIB);
  const settings =
    why === 'off' ? { cache_features: true, image_augmentation: undefined } : { cache_limit_mb: limit };
  const open = { ...facts, machine: { ...facts.machine, disk: { ...facts.machine.disk, cache: Infinity } } };
  const other = { ...config, ...settings };
  const [now, then] = [
    timeOf(facts, config, cachePlan(facts, config)),
    timeOf(open, other, cachePlan(open, other)),
  ];
  const cost = now && then ? `: ${duration(now.total)} instead of ${duration(then.total)}` : '';
  if (now && then && now.total < 1.05 * then.total) return [];
  const what = `the frozen parts run at every step${cost}`;
  if (why === 'off') return [`without a feature cache, ${what}`];
  const size = gigabytes(bytes);
  if (why === 'not enough disk')
    return [
      `features take ${size}, ${gigabytes(facts.machine.disk.cache)} are free, so the run will stop; set cache_dir to a larger disk, or cache_features=false`,
    ];
  const room =
    bytes <= facts.machine.disk.cache
      ? ''
      : ` and a cache_dir with ${size} free (${gigabytes(facts.machine.disk.cache)} are)`;
  return [
    `features take ${size}, above cache_limit_mb (${config.cache_limit_mb}), so ${what}; avoid it with cache_limit_mb=${limit}${room}`,
  ];
}

export const gigabytes = (bytes: number) =>
  bytes < 1e9
    ? `${Math.ceil(bytes / 1e6).toLocaleString('en')} MB`
    : `${(bytes / 1e9).toFixed(bytes < 1e11 ? 1 : 0)} GB`;

/** Seconds as two units at most. */
export function duration(seconds: number): string {
  if (seconds < 100) return `${Math.ceil(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 48 * 3600 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(1)} days`;
}

/** Disk that a run takes, and what becomes of its feature cache. */
import type { FitConfig } from '../config';
import { cacheableStage, fileBytes, stageShape } from '../features';
import type { CachedStage } from '../features';
import type { PlanFacts } from './facts';
import { trainedBy } from './layers';
import type { Trained } from './layers';

const FLOAT = 4;
const MIB = 2 ** 20;

/** Bytes. */
export interface DiskParts {
  model: number;
  features: number;
  /** all that are there at once: those kept, the best one, and the one being written */
  checkpoints: number;
  /** the adapter or the model of the run */
  result: number;
}

/** Where the features of a run go. */
export interface CachePlan {
  stage?: CachedStage;
  bytes: number;
  kept: 'memory and disk' | 'disk' | 'memory' | 'none';
  /** why there is none */
  why?: 'the vision tower trains' | 'off' | 'above cache_limit_mb' | 'not enough disk';
}

export function cachePlan(facts: PlanFacts, config: FitConfig): CachePlan {
  const { names, modules } = trainedBy(facts.model.config, config);
  const stage = cacheableStage(facts.model.config, [...names, ...modules]);
  if (!stage) return { bytes: 0, kept: 'none', why: 'the vision tower trains' };
  const bytes = facts.data.pictures * fileBytes(stageShape(facts.model.config, stage));
  if (!config.cache_features || config.image_augmentation) return { stage, bytes, kept: 'none', why: 'off' };
  const inMemory = bytes <= config.cache_memory_mb * MIB;
  const onDisk = bytes <= config.cache_limit_mb * MIB;
  if (!inMemory && !onDisk) return { stage, bytes, kept: 'none', why: 'above cache_limit_mb' };
  if (!inMemory && bytes > facts.machine.disk.cache)
    return { stage, bytes, kept: 'none', why: 'not enough disk' };
  return { stage, bytes, kept: !onDisk ? 'memory' : inMemory ? 'memory and disk' : 'disk' };
}

export function diskOf(facts: PlanFacts, config: FitConfig, { bytes, kept }: CachePlan): DiskParts {
  const trained = trainedBy(facts.model.config, config);
  const checkpoint = 3 * FLOAT * trained.trainable; // weights and two moments
  return {
    model: facts.model.bytes,
    features: kept.includes('disk') ? bytes : 0,
    checkpoints: (config.save_total_limit + 2) * checkpoint,
    result: resultBytes(trained),
  };
}

/** An adapter has what trains; without one the whole model is saved, in float32. */
export const resultBytes = ({ trainable, all, lora }: Trained): number =>
  FLOAT * (lora > 0 ? trainable : all);

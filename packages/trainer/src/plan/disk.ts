/** Disk that a run takes, and what becomes of its feature cache. */
import type { FitConfig } from '../config';
import { cacheableStage, fileBytes, stageShape } from '../features';
import type { CachedStage } from '../features';
import { hiddenBytes } from '../features/run-hidden';
import type { PlanFacts } from './facts';
import { frozenBy, trainedBy } from './layers';
import type { Trained } from './layers';
import { roundedFileBytes } from './rounded-weights';

const FLOAT = 4;
const MIB = 2 ** 20;

/** Bytes. */
export interface DiskParts {
  model: number;
  features: number;
  /** with precision int8 or int4: the file of the rounded weights, for all runs with the same factors */
  rounded: number;
  /** all that are there at once: those kept, the best one, and the one being written */
  checkpoints: number;
  /** the adapter or the model of the run */
  result: number;
}

type Kept = 'memory and disk' | 'disk' | 'memory' | 'none';

/** Where the features of a run go. */
export interface CachePlan {
  stage?: CachedStage;
  bytes: number;
  kept: Kept;
  /** hidden states before a layer of the text model, if those below it are frozen */
  hidden?: { depth: number; bytes: number; kept: Kept };
  /** why there is none */
  why?: 'the vision tower trains' | 'off' | 'above cache_limit_mb' | 'not enough disk';
}

export function cachePlan(facts: PlanFacts, config: FitConfig): CachePlan {
  const features = featurePlan(facts, config);
  const depth = frozenBy(facts.model.config, config);
  if (depth === 0) return features;
  const { pictures, texts } = facts.data.taught;
  const bytes = hiddenBytes(facts.model.config, facts.data.taught) + fileBytes([0, 0]) * (pictures + texts);
  const kept = features.kept === 'none' ? 'none' : placeOf(facts, config, features.bytes + bytes);
  return { ...features, hidden: { depth, bytes, kept } };
}

/** By the limits on memory and disk. */
export function placeOf({ machine }: Pick<PlanFacts, 'machine'>, config: FitConfig, bytes: number): Kept {
  const inMemory = bytes <= config.cache_memory_mb * MIB;
  const onDisk = bytes <= config.cache_limit_mb * MIB;
  if (!inMemory && (!onDisk || bytes > machine.disk.cache)) return 'none';
  return !onDisk ? 'memory' : inMemory ? 'memory and disk' : 'disk';
}

function featurePlan(facts: PlanFacts, config: FitConfig): CachePlan {
  const { names, modules } = trainedBy(facts.model.config, config);
  const stage = cacheableStage(facts.model.config, [...names, ...modules]);
  if (!stage) return { bytes: 0, kept: 'none', why: 'the vision tower trains' };
  const bytes = facts.data.pictures * fileBytes(stageShape(facts.model.config, stage));
  if (!config.cache_features || config.image_augmentation) return { stage, bytes, kept: 'none', why: 'off' };
  const kept = placeOf(facts, config, bytes);
  if (kept !== 'none') return { stage, bytes, kept };
  const why = bytes > config.cache_limit_mb * MIB ? 'above cache_limit_mb' : 'not enough disk';
  return { stage, bytes, kept, why };
}

/** Bytes of all that is kept in memory, or on disk. */
export const keptBytes = ({ bytes, kept, hidden }: CachePlan, where: 'memory' | 'disk'): number =>
  (kept.includes(where) ? bytes : 0) + (hidden?.kept.includes(where) ? hidden.bytes : 0);

export function diskOf(facts: PlanFacts, config: FitConfig, cache: CachePlan): DiskParts {
  const trained = trainedBy(facts.model.config, config);
  const checkpoint = 3 * FLOAT * trained.trainable; // weights and two moments
  return {
    model: facts.model.bytes,
    features: keptBytes(cache, 'disk'),
    rounded: roundedFileBytes(facts),
    checkpoints: (config.save_total_limit + 2) * checkpoint,
    result: resultBytes(trained),
  };
}

/** An adapter has what trains; without one the whole model is saved, in float32. */
export const resultBytes = ({ trainable, all, lora }: Trained): number =>
  FLOAT * (lora > 0 ? trainable : all);

/**
 * What a kind of model learns in a run, behind one value: `captioning.ts` for texts of pictures, `retrieval/` for models that compare
 * pictures and texts. `fit`, the training loop and the run folder know nothing else of a model.
 */
import type { Blip2Config } from '@blip2/blip2';
import type { ReadyDataset } from '@blip2/data-captions';
import type { Key, Scalar, StageOptions } from '@blip2/nn';
import type { PresetName } from '@blip2/peft-lora';
import type { FitConfig } from './config';
import type { RunBatch } from './data/batches';
import type { FinalEvaluation } from './evaluation/final';
import type { Finished } from './evaluation/next-step';
import type { FitHooks, WorkHooks } from './hooks';
import type { TrainingSample } from './run/logs';
import type { Cached, Opened, Placed, Planned } from './stages';

/** The types that differ between objectives. */
export interface Kind {
  model: { config: Pick<Blip2Config, 'vision_config'>; params: object };
  /** a micro-batch */
  batch: RunBatch;
  /** what the base finds for the final table's examples */
  before: unknown;
}

/** What is known of a run before its model is loaded. */
export type Opening<K extends Kind> = Omit<Opened<K>, LoadedFields>;
type LoadedFields = 'model' | 'trainables' | 'adapter' | 'line' | 'smoothing' | 'hashes';
export type Loaded<K extends Kind> = Pick<Opened<K>, LoadedFields>;

export interface LossRun {
  /** of dropout; without it the model runs as in evaluation */
  key?: Key;
  checkpoint?: boolean;
  label_smoothing?: number;
  tap?: StageOptions['tap'];
}

export interface Objective<K extends Kind> {
  /** The data with their tokens. Nothing large is loaded. @throws ConfigError, DataError, ModelError for settings, data or sizes that do not fit */
  prepare(config: FitConfig, hooks: FitHooks): Promise<Pick<Planned, 'config' | 'data' | 'processor'>>;
  /**
   * What shapes the result beside settings and files.
   * @param processes that train together. @throws ConfigError if they cannot
   */
  shaping(config: FitConfig, processes: number): Promise<Record<string, unknown>>;
  /** The model with what trains in it. */
  load(run: Opening<K>, hooks: FitHooks): Promise<Loaded<K>>;
  /**
   * The caches of what frozen parts compute; each rank computes its share. Ranks wait for each other only before the signal is checked.
   * @param held gets what ends their use
   */
  caches(
    run: Opened<K>,
    hooks: WorkHooks,
    held: (() => Promise<void>)[],
  ): Promise<Pick<Cached<K>, 'cache' | 'hidden'>>;
  trainingBatches(run: Cached<K>, epoch: number, first: number): AsyncIterable<K['batch']>;
  evaluationBatches(run: Cached<K>, dataset: ReadyDataset): AsyncIterable<K['batch']>;
  /** What a micro-batch counts for in a mean of losses, and its pictures. */
  size(batch: K['batch']): { tokens: number; images: number };
  loss(run: Cached<K>, batch: K['batch'], o: LossRun): Scalar;
  /** Scores of the validation data beside eval_loss, by their names in metrics.jsonl, the same on every rank. */
  scores(run: Cached<K>): Promise<Record<string, number>>;
  /** What the model finds for a few fixed examples. */
  samples(run: Cached<K>, step: number): Promise<TrainingSample[]>;
  /** What the base finds for the final table's examples. @throws the signal's reason when it is raised */
  before(run: Cached<K>, hooks: WorkHooks): Promise<K['before'] | undefined>;
  /** The final table. @throws the signal's reason when it is raised */
  final(run: Cached<K>, hooks: WorkHooks): Promise<FinalEvaluation | undefined>;
  /** Saves what was trained, and returns the folder. */
  save(run: Placed<K>): Promise<string>;
  /** The preset that is recommended for so many training rows, and a command that tries the result. */
  recommended(run: Opened<K>): PresetName;
  tryIt(finished: Finished): string[];
}

/** What a run holds at each point of fit.ts. Every stage is a new value with all that the one before holds; none changes. */
import type { Blip2 } from '@blip2/blip2';
import type { Processor, ReadyDataset } from '@blip2/data-captions';
import type { BackendReport, Variable } from '@blip2/nn';
import type { LoraConfig } from '@blip2/peft-lora';
import type { FitConfig } from './config';
import type { FitData } from './data/open';
import type { generateCaptions } from './evaluation/captions';
import type { FeatureCache } from './features/cache';
import type { Checkpoint, RunIdentity } from './run/checkpoint';
import type { World } from './train/world';

/** Data and texts are checked; of the model only its configuration is known. */
export interface Planned {
  /** `output_dir` is the folder that was free */
  readonly config: FitConfig;
  readonly data: FitData<ReadyDataset>;
  readonly processor: Processor;
  /** the examples of the final table */
  readonly final?: { readonly split: 'test' | 'validation'; readonly dataset: ReadyDataset };
}

/** The model is loaded, with what trains in it. `config.precision` is the one in use. */
export interface Opened extends Planned {
  readonly world: World;
  readonly backend: BackendReport;
  readonly identity: RunIdentity;
  /** the checkpoint that a resumed run goes on from */
  readonly resumeFrom?: Checkpoint;
  readonly model: Blip2;
  readonly trainables: Map<string, Variable>;
  /** the LoRA configuration that the model's adapters were made with */
  readonly adapter?: LoraConfig;
  /** the trainable-parameters line */
  readonly line: string;
  /** what writes texts; another may stand in for it */
  readonly generate: typeof generateCaptions;
}

/** Outputs of frozen parts are computed; with a cache, every image has been read by now. */
export interface Cached extends Opened {
  readonly cache?: FeatureCache;
  /** the base's texts of the final table's images, when controls are wanted */
  readonly before?: string[];
}

/** The run folder is there: `config.output_dir`, which another run may have made differ from the planned one. */
export type Placed = Cached;

/** The stages of a run, in the order of fit.ts. Each is a new immutable value that extends the one before. */
import type { Smoothing } from '@blip2/blip2';
import type { Dataset, Processor } from '@blip2/data-captions';
import type { BackendReport, Variable } from '@blip2/nn';
import type { LoraConfig } from '@blip2/peft-lora';
import type { Captioning } from './captioning';
import type { FitConfig } from './config';
import type { ReadyData } from './data/open';
import type { generateCaptions } from './evaluation/captions';
import type { FeatureCache } from './features/cache';
import type { HiddenCache } from './features/hidden';
import type { WeightHashes } from './features/key';
import type { Kind, Objective } from './objective';
import type { Checkpoint, RunIdentity } from './run/checkpoint';
import type { ImageList } from './run/identity';
import type { World } from './train/world';

/** Data and texts are checked. Of the model only the configuration is loaded. */
export interface Planned {
  /** `output_dir` is the folder that was free */
  readonly config: FitConfig;
  readonly data: ReadyData;
  readonly processor: Processor;
  /** the examples of the final table */
  readonly final?: { readonly split: 'test' | 'validation'; readonly dataset: Dataset };
}

/** The model is loaded, with what trains in it. `config.precision` is the one in use. */
export interface Opened<K extends Kind = Captioning> extends Planned {
  readonly objective: Objective<K>;
  readonly world: World;
  readonly backend: BackendReport;
  readonly identity: RunIdentity;
  /** the contents of the training images; absent if they are not cached */
  readonly images?: ImageList;
  /** of the rounded weights, in int8 */
  readonly smoothing?: Smoothing;
  /** the checkpoint that a resumed run starts from */
  readonly resumeFrom?: Checkpoint;
  readonly model: K['model'];
  readonly trainables: Map<string, Variable>;
  /** the LoRA configuration that the model's adapters were made with */
  readonly adapter?: LoraConfig;
  /** made on one rank for all of a world */
  readonly hashes?: WeightHashes;
  /** the trainable-parameters line */
  readonly line: string;
  /** generates the texts; specs pass another function */
  readonly generate: typeof generateCaptions;
}

/** The features of the frozen parts are computed. With a cache, every image has been read. */
export interface Cached<K extends Kind = Captioning> extends Opened<K> {
  readonly cache?: FeatureCache;
  /** keeps what the frozen lower layers of the text model compute of training and validation rows */
  readonly hidden?: HiddenCache;
  /** what the base finds for the final table's images, when controls are wanted */
  readonly before?: K['before'];
}

/** The run folder exists: `config.output_dir`. It differs from the planned one if another run took that name. */
export type Placed<K extends Kind = Captioning> = Cached<K>;

/** What a plan is made of: sizes of the model, the data and the machine, and what a calibration measured. */
import type { Blip2Config } from '@blip2/blip2';
import type { Precision } from '@blip2/nn';
import type { CachedStage } from '../features';
import type { HiddenAmount } from '../features/run-hidden';

export interface ModelFacts {
  config: Blip2Config;
  /** how the checkpoint stores its matrices that are not quantised */
  dtype: 'F32' | 'F16' | 'BF16';
  /** bytes of its quantised weights with their scales, by name */
  quantised?: ReadonlyMap<string, number>;
  /** bytes of its weight files, and the largest of them; undefined without weights */
  bytes: number;
  file?: string;
}

export interface DataFacts {
  /** rows of the training, validation and final splits */
  rows: number;
  validation: number;
  final: number;
  /** rows of the loss of an evaluation: a caption each */
  losses: number;
  /** different prompts of the final split */
  prompts: number;
  /** distinct pictures of all of them */
  pictures: number;
  /** distinct pictures, texts and tokens of the training and validation rows */
  taught: HiddenAmount;
  /** tokens of a text in a training batch, without the image's and without pads: the mean, and that of the batch with the most */
  tokens: { mean: number; most: number };
  /** pictures in a training batch for each row: below 1 where rows share pictures */
  pictures_per_row: number;
  /** tokens generated for the longest text of a batch, on average */
  generated: number;
  /** mean bytes of some pictures */
  picture_bytes?: number;
  /** the lengths are estimated from characters, because there is no tokenizer */
  estimated?: boolean;
}

export interface MachineFacts {
  /** bytes of memory that a process may use; on a GPU, those of the GPU if they are known */
  memory: number;
  /** free bytes where runs and features are kept */
  disk: { output: number; cache: number };
  backend: string;
  precision: Precision;
  /** whether the backend keeps large matrices in the type of their files; webgpu has copies of them on the GPU */
  stores: boolean;
}

/** A training step of `batch` rows, from hidden states if the lower layers of the text model are frozen. */
export interface StepCost {
  batch: number;
  /** seconds of these lower layers */
  below: number;
  /** seconds of loss and gradients, of the loss alone, and of the optimizer */
  compute: number;
  forward: number;
  update: number;
  /** bytes of tensors that the backward pass reads, and of those that are there beside them, or beside all gradients */
  tape: number;
  work: number;
}

/** An output of the frozen parts, per picture: seconds, and bytes of tensors meanwhile. */
export interface StageCost {
  seconds: number;
  bytes: number;
}

/** Measured with real kernels at the model's widths, for its whole depth. */
export interface Calibration {
  /** bytes of the process during a run, without tensors */
  process: number;
  /** seconds of `fit` before it opens the model: reading the data, and its own plan of a small model */
  starting: number;
  /** seconds to read and normalise a picture */
  picture: number;
  /** seconds to read and check a byte of the model's files */
  byte: number;
  stages: Partial<Record<CachedStage, StageCost>>;
  /** by `runName` */
  steps: Partial<Record<string, StepCost>>;
  /** seconds for a batch of `rows` texts: to read the prompt, and for each new token */
  generation?: { rows: number; prompt: number; token: number };
  /** seconds for each number of a weight of 8 or 4 bits, see `roundingCost` */
  rounding?: Partial<Record<8 | 4, number>>;
}

export interface PlanFacts {
  model: ModelFacts;
  data: DataFacts;
  machine: MachineFacts;
  measured: Calibration;
}

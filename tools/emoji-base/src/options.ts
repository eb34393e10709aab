// What a pretraining run is told.
import type { Budget } from './schedule';

export interface PretrainOptions {
  /** Folder of the finished model. */
  output: string;
  /** Folder of log, checkpoint and the model as it stands. */
  run: string;
  /** Cache of the rendered images. */
  cache: string;
  budget: Budget;
  batch: number;
  /** English lines per batch. */
  lines: number;
  /** Peak learning rate. */
  lr: number;
  seed: number;
  resume: boolean;
  /** Minutes between evaluations, each with a checkpoint. */
  evalMinutes: number;
  logEvery: number;
  /** Looks at the test images, once, after the last update. */
  test: boolean;
  /** Stops after the running update and saves, so that --resume goes on. */
  signal?: AbortSignal;
  note: (text: string) => void;
}

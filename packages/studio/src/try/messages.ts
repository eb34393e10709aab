import type { TryResult } from '../api';
import type { Asked } from './explain';

/** A model, and an adapter on it. */
export interface TriedModel {
  name: string;
  model: string;
  /** of the model's files; see `versionOf` */
  version: string;
  adapter?: string;
  adapterVersion?: string;
}

/** To the thread. */
export interface Question extends Asked {
  id: number;
  models: readonly TriedModel[];
}

/** From the thread. */
export type Answer = { id: number; result: TryResult } | { id: number; error: string };

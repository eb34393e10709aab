import type { TryResult } from '../api';
import type { Asked } from './explain';

/** A model, and an adapter on it. */
export interface TriedModel {
  name: string;
  model: string;
  adapter?: string;
}

/** To the thread. */
export interface Question extends Asked {
  id: number;
  models: readonly TriedModel[];
}

/** From the thread. */
export type Answer = { id: number; result: TryResult } | { id: number; error: string };

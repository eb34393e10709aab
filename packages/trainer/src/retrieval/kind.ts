import type { FirstStage, Negatives, RetrievalModel } from '@blip2/retrieval';
import type { RunBatch } from '../data/batches';
import type { Kind } from '../objective';

/** The model with what its first stage trains beside it. */
export interface TrainedRetrieval extends RetrievalModel {
  params: RetrievalModel['params'] & { first_stage: FirstStage };
  /** the id that begins a text which is generated: see `wordIds` */
  start: number;
}

export interface PairBatch extends RunBatch {
  negatives: Negatives;
}

export interface Retrieval extends Kind {
  model: TrainedRetrieval;
  batch: PairBatch;
  /** similarities of each example with each text of the collection, row-major */
  before: Float32Array;
}

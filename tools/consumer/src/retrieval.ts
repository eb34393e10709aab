import { recall, similarity } from '@blip2/retrieval';
import type { RetrievalModel, RetrievalScores } from '@blip2/retrieval';
import { loadRetrievalModel } from '@blip2/retrieval/node';
import type { Tensor2D } from '@blip2/nn';
import { same } from './types.js';

same<ReturnType<typeof recall>, RetrievalScores>(true);
same<ReturnType<typeof similarity>, Tensor2D>(true);
same<ReturnType<typeof loadRetrievalModel>, Promise<RetrievalModel>>(true);
// @ts-expect-error the texts of each image are lists
recall(new Float32Array(4), [0, 1]);

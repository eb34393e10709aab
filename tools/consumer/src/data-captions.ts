import {
  batches,
  checkData,
  collate,
  epochOrder,
  loadProcessor,
  loadTokenizer,
  openDataset,
} from '@blip2/data-captions';
import type { Batch, DataReport, Dataset, Processor, Tokenizer } from '@blip2/data-captions';
import { same } from './types.js';

same<ReturnType<typeof openDataset>, Promise<Dataset>>(true);
same<ReturnType<typeof loadProcessor>, Promise<Processor>>(true);
same<ReturnType<typeof loadTokenizer>, Promise<Tokenizer>>(true);
same<ReturnType<typeof checkData>, Promise<DataReport>>(true);
same<ReturnType<typeof batches>, AsyncGenerator<Batch, void, undefined>>(true);
same<ReturnType<typeof epochOrder>, Int32Array>(true);
// @ts-expect-error a path
void openDataset(3);
// @ts-expect-error rows need the processor that encodes them
collate([]);

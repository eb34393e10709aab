import type { Tensor2D, Tensor3D } from '@blip2/nn';
import { decode, embedTokens, encode, lmLogits, parseT5Config, t5 } from '@blip2/t5-language-model';
import type { T5Config, T5Model } from '@blip2/t5-language-model';
import { same } from './types.js';

same<ReturnType<typeof parseT5Config>, T5Config>(true);
same<ReturnType<typeof embedTokens>, Tensor3D>(true);
same<ReturnType<typeof encode>, Tensor3D>(true);
same<(typeof t5)['rows'], 'causal' | 'seq2seq'>(true);
const rows = lmLogits({} as T5Model, {} as Tensor2D, {} as T5Config);
same<typeof rows, Tensor2D>(true);
// @ts-expect-error the decoder reads what the encoder made
decode({} as T5Model, {} as Tensor3D, {} as T5Config, { attention_mask: new Int32Array(4) });

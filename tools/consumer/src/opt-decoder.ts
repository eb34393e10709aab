import type { Tensor2D, Tensor3D } from '@blip2/nn';
import { decode, embedTokens, lmLogits, parseOptConfig } from '@blip2/opt-decoder';
import type { KvCache, OptConfig, OptModel } from '@blip2/opt-decoder';
import { same } from './types.js';

same<ReturnType<typeof parseOptConfig>, OptConfig>(true);
same<ReturnType<typeof embedTokens>, Tensor3D>(true);
same<ReturnType<typeof decode>['cache'], KvCache | undefined>(true);
const rows = lmLogits({} as OptModel, {} as Tensor2D);
same<typeof rows, Tensor2D>(true);
// @ts-expect-error a batch has two sizes
embedTokens({} as OptModel, new Int32Array(4), [4]);
// @ts-expect-error options say how to decode
decode({} as OptModel, {} as Tensor3D, {} as OptConfig);

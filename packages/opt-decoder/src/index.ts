export { parseOptConfig } from './config';
export type { OptConfig } from './config';
export { decode, embedTokens, lmHead, lmLogits, optWeights } from './opt';
export type { DecodeOptions, KvCache, OptLayer, OptModel } from './opt';

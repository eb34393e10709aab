export { parseOptConfig } from './config';
export type { OptConfig } from './config';
export { decode, embedTokens, lmHead, lmLogits, optWeights } from './opt';
export type { CachePage, KvCache } from './kv-cache';
export type { DecodeOptions, OptLayer, OptModel } from './opt';
export { opt } from './language-model';
export type { OptState } from './language-model';

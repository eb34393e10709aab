export { parseT5Config } from './config';
export type { T5Config } from './config';
export { bucketOf, positionBias } from './position-bias';
export type { BucketOptions } from './position-bias';
export type {
  CrossAttentionLayer,
  DecoderBlock,
  EncoderBlock,
  FeedForwardLayer,
  SelfAttentionLayer,
  T5Attention,
} from './layer';
export { decode, embedTokens, encode, lmHead, lmLogits, t5Weights } from './t5';
export type { DecodeOptions, EncodeOptions, Stack, T5Model } from './t5';
export { t5 } from './language-model';
export type { T5State } from './language-model';

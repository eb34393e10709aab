export { parseQFormerConfig, parseWordsConfig } from './config';
export type { QFormerConfig } from './config';
export { crossAttentions, qformerWeights, queryImages, readTexts } from './qformer';
export type { QFormerAttention, QFormerLayer, QFormerModel, QFormerTexts } from './qformer';
export { embedWords, withoutWords } from './words';
export type { InstructedQFormer, TextRows, WordsConfig, WordTables } from './words';

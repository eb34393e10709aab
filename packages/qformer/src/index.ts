export { parseQFormerConfig } from './config';
export type { QFormerConfig } from './config';
export { qformerWeights, queryImages, readTexts } from './qformer';
export type { QFormerAttention, QFormerLayer, QFormerModel, QFormerTexts } from './qformer';

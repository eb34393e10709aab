export { parseQFormerConfig } from './config';
export type { QFormerConfig } from './config';
export { qformerWeights, queryImages } from './qformer';
export type { QFormerAttention, QFormerLayer, QFormerModel } from './qformer';

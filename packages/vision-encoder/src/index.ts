export { parseVisionConfig } from './config';
export type { VisionConfig } from './config';
export { encodeImages, poolImages, visionWeights } from './vision-encoder';
export type { EncodeOptions, VisionLayer, VisionModel } from './vision-encoder';

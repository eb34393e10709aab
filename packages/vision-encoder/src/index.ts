export { parseVisionConfig } from './config';
export type { VisionConfig } from './config';
export { encodeImages, visionWeights } from './vision-encoder';
export type { VisionLayer, VisionModel } from './vision-encoder';

export { ModelError, parseConfig } from './config';
export type { Blip2Config } from './config';
export { isOwnQuantised } from './quantisation';
export { blip2Weights } from './model';
export { OUTPUT_LAYER, outputLayerName, writingModel } from './output-layer';
export type { OutputLayer } from './output-layer';
export type { Blip2, Blip2Params } from './model';
export { bitsOf, isRounded, loadModel, loadTable } from './load';
export type { Int8Options, LoadOptions, ModelSource, Smoothing, TableOptions } from './load';
export { configText, modelFiles, tensorsToWrite } from './save';
export type { SavedDType } from './save';
export { initModel } from './init';
export { adapterBase, withOwnTies } from './ties';
export { frozenDepth, isBelow } from './frozen';
export { segmentsOf } from './packing';
export type { Segment } from './packing';
export { stagesOf } from './stages';
export type { ImageStage } from './stages';
export { imagePrompt, textIds } from './tokens';
export type { TokenBatch } from './tokens';
export {
  forward,
  hiddenBelow,
  imageFeatures,
  inputEmbeds,
  loss,
  pooledImage,
  qformerFeatures,
  queryEmbeds,
} from './forward';
export type { Blip2Options, ImageInput, LossInput, LossOptions, QueryOptions } from './forward';
export { draftsOf } from './drafts';
export { beamSteps, generate, nextTokenProbabilities, streamTokens } from './generate';
export type { StreamedToken } from './generate';
export { TextBatch } from './text-batch';
export type { BatchToken } from './text-batch';
export type { TextEnd } from './history';
export { checkOptions, defaultNewTokens } from './generate-options';
export type { GenerateOptions } from './generate-options';

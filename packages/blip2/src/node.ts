/** The exports that need Node: checkpoint folders, and how their weights are rounded to int8. */
export { copyCompanions, loadConfig, loadFolder, readConfig, saveModel, writeModel } from './folder';
export type { FolderOptions, SaveOptions } from './folder';
export { checkpointIdentity } from './int8-file';
export type { Int8FileOptions } from './int8-file';
export {
  measureSmoothing,
  MOST_ERROR,
  MOST_ERRORS,
  readSmoothing,
  SMOOTHING_TRIALS,
  smoothingDigest,
  writeSmoothing,
} from './smoothing';
export type { LayerErrors, MeasuredSmoothing, MeasureOptions } from './smoothing';
export { fitInt4 } from './fit-int4';
export type { FitInt4Options } from './fit-int4';
export { ScratchWeights } from './scratch-weights';
export { QUANTISED_FORMATS, quantiseFolder } from './quantise';
export type { QuantisedFormat, QuantiseOptions, WrittenQuantised } from './quantise';

export * from './ops';
export type {
  Activation,
  KernelAttrs,
  KernelInputs,
  KernelName,
  KernelOutputs,
  Kernels,
  LayerLists,
  LayerListsAttrs,
  Packing,
} from './kernels';
export { registerKernels, runKernel } from './kernel-door';
export { LAYER_KERNELS, takeApart } from './own-kernels';
export type { Kernel } from './kernel-door';
export { BACKENDS, cpuBackend, inFloat32, PRECISIONS, startBackend, wasmBackend } from './backends';
export { weightBits } from './backends';
export type { BackendAttempt, BackendName, BackendProvider, BackendReport, Precision } from './backends';
export { checkpoint, part, recordedBytes, valueAndGrads } from './autodiff';
export {
  checkStoredFiles,
  columnMaxima,
  dropPages,
  isQuantised,
  inputRoot,
  quantised,
  spanBytes,
  spanLength,
  spansOf,
  storedBytes,
  storedTensor,
} from './stored';
export type { Encoding, ReadFile, Rounding, Span, StoredWeight, StoringBackend } from './stored';
export { roundWeight } from './rounding';
export { joinCached, mergePages, pickCached, pickPages } from './cached-rows';
export type { CachedRows, CachePage } from './cached-rows';
export { fold, normal, permutation, philox, randomWords, rngKey, uniform } from './rng';
export type { Key } from './rng';
export {
  countParameters,
  flatten,
  isTrainable,
  matchNames,
  nest,
  replaceLeaves,
  trainableLeaves,
} from './tree';
export { nearest, probableName } from './nearest';
export type { ParamTree } from './tree';
export { checkHeads, configFields } from './config-fields';
export type { ConfigFields } from './config-fields';
export { layerNormShapes, linearShapes } from './shapes';
export type { WeightTable } from './shapes';
export type {
  DraftSteps,
  EmbeddedRows,
  LabelledRows,
  LanguageModel,
  LowerLayers,
  PackedBatch,
  TextConfig,
  Tie,
  TokenBatch,
} from './language-model';

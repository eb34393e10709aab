export type { Activation, KernelName, KernelTable } from './kernels';
export type { Scalar, Tensor, Tensor1D, Tensor2D, Tensor3D, Variable } from './ops';
export type { Tensor4D, TypedArray } from '@tensorflow/tfjs-core';
export { availableBackends, BACKENDS, inFloat32, PRECISIONS, probeBackends, useBackend } from './backend';
export type { BackendAttempt, BackendName, BackendReport, Precision } from './backend';
export {
  add,
  argMax,
  concat,
  dispose,
  div,
  exp,
  gatherRows,
  keep,
  log,
  logSoftmax,
  max,
  maxAbs,
  mean,
  memory,
  mul,
  reshape,
  scale,
  slice,
  softmax,
  split,
  sqrt,
  sub,
  sum,
  tensor,
  tidy,
  tile,
  topk,
  transpose,
  variable,
  zeros,
} from './ops';
export {
  activatedLinear,
  attention,
  crossEntropy,
  doraNorm,
  dropout,
  embedding,
  gelu,
  layerNorm,
  linear,
  linearCrossEntropy,
  pagedAttention,
  relu,
  residualLinear,
  site,
} from './model-ops';
export type {
  AttentionOptions,
  Embedding,
  KvPage,
  LayerNorm,
  Linear,
  LoraPart,
  ResidualOptions,
  StageOptions,
} from './model-ops';
export { checkpoint, part, valueAndGrads } from './autodiff';
export { storedTensor } from './stored';
export type { StoredSource } from './stored';
export { adamW, clipScale, globalNorm } from './optimizer';
export type { AdamWOptions, AdamWSlot } from './optimizer';
export { fold, normal, permutation, philox, randomWords, rngKey, uniform } from './rng';
export type { Key } from './rng';
export {
  countParameters,
  flatten,
  isTrainable,
  matchNames,
  nearest,
  nest,
  replaceLeaves,
  trainableLeaves,
} from './tree';
export type { ParamTree } from './tree';
export { checkHeads, configFields } from './config-fields';
export type { ConfigFields } from './config-fields';
export { layerNormShapes, linearShapes } from './shapes';
export type { WeightTable } from './shapes';
export type { EmbeddedRows, LanguageModel, TextConfig, Tie, TokenBatch } from './language-model';

export type { PresetName } from '@blip2/peft-lora';
export type { FitConfig, Setting } from './config';
export {
  applyOverrides,
  commentedYaml,
  ConfigError,
  defaultConfig,
  evaluationMetrics,
  fitSchema,
  fromYaml,
  greaterIsBetter,
  hasLora,
  parseConfig,
  PRESETS,
  readConfigFile,
  SCHEMA_FILE,
  settings,
  toYaml,
} from './config';
export { chooseConfig, chooseSettings, readFacts, unlikelyToLearn } from './choose';
export type { Choice, ChosenConfig, Facts } from './choose';
export { fit } from './fit';
export type { FitOptions, FitResult } from './fit';
export type { FitHooks, WorkHooks } from './hooks';
export { alone, RankError } from './train/world';
export type { World } from './train/world';
export { loadData } from './data/open';
export type { FitData } from './data/open';
export { examplesOpener } from './data/examples';
export { RunFolderError } from './run/folder';
export { adapterFolder, baseFolder } from './model/start-adapter';
export { partKeys } from './model/part-keys';
export { exactLine, smoothingOfRun } from './model/smoothing';
export { heldOut, openRun, trainedPictures } from './run/finished';
export type { FinishedRun } from './run/finished';
export { baseFingerprint } from './run/identity';
export type { IfExists } from './run/folder';
export {
  cacheableStage,
  cacheBytes,
  cachedInput,
  cacheEntries,
  defaultCacheDir,
  featureKey,
  loadedStage,
  openFeatureCache,
  openStore,
  releaseStage,
  removeEntry,
  runStage,
  stageInput,
  stageShape,
} from './features';
export type {
  CachedStage,
  CacheEntry,
  CacheOptions,
  FeatureCache,
  FeatureKey,
  FeatureStore,
  LoadedStage,
} from './features';
export { createAdamW, decays, disposeAdamW, moments, updateAdamW } from './train/optimizer';
export type { AdamW, AdamWOptions } from './train/optimizer';
export { makeSchedule, SCHEDULERS, warmupSteps } from './train/schedule';
export type { Schedule, ScheduleOptions, SchedulerType } from './train/schedule';
export { initialState, stepsPerEpoch, train } from './train/train';
export type {
  Ending,
  LogRow,
  Progress,
  TrainHooks,
  TrainOptions,
  TrainResult,
  TrainState,
} from './train/train';
export { layerScale } from './train/layer-decay';
export type { TrainingSample } from './run/logs';
export { NonFiniteError } from './train/step';
export type { TrainParts } from './train/step';
export {
  findCheckpoint,
  listCheckpoints,
  restoreCheckpoint,
  rotateCheckpoints,
  writeCheckpoint,
} from './run/checkpoint';
export type { Checkpoint, Damaged, RunIdentity } from './run/checkpoint';
export {
  CAPTION_FIGURES,
  DEGENERATION,
  EXACT,
  figureTables,
  formatTable,
  generateCaptions,
  judge,
  namedFigures,
  percent,
  referenceOf,
  referencesOf,
  scoreCaptions,
  sizeOf,
  times100,
} from './evaluation';
export { namedReferences } from './evaluation/final';
export { textRules } from './data/limits';
export type {
  CaptionOptions,
  Figures,
  Judgement,
  JudgeOptions,
  ResultRow,
  ResultsTable,
  Score,
} from './evaluation';
export { HEADLINES, verdict } from './evaluation/verdict';
export type { Outcome, Verdict, VerdictInput } from './evaluation/verdict';
export type { NextStep } from './evaluation/next-step';
export type { Evidence } from './evaluation/evidence';
export { duration, gigabytes, makePlan, planOf, planOfRun, presetPlan } from './plan';
export type {
  CachePlan,
  Calibration,
  CaptionsPlan,
  Cluster,
  ClusterPlan,
  DataFacts,
  DiskParts,
  Fits,
  LeftOut,
  MachineFacts,
  MemoryParts,
  ModelFacts,
  NodesPlan,
  Plan,
  PlanFacts,
  PresetPlan,
  StepCost,
  TimeParts,
} from './plan';
export { recommendedPresets } from './plan/advice';
export { RETRIEVAL_BASE, retrievalPreset } from './retrieval/presets';
export type { Planned } from './stages';
export { readRun, reportHtml, writeReport } from './report';
export type { ComparedRun, Comparison } from './report/compare';
export { compare, comparisonHtml, comparisonTable, writeComparison } from './report/compare-page';
export { commandLine } from './report/command-line';
export { spread } from './report/spread';
export type { MetricRow, Run, RunResults, SampleRow } from './report';

export type { PresetName } from '@blip2/peft-lora';
export type { FitConfig, Setting } from './config';
export {
  applyOverrides,
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
  settings,
  toYaml,
} from './config';
export { fit } from './fit';
export type { FitHooks, FitResult } from './fit';
export { loadData } from './fit-data';
export type { FitData } from './fit-data';
export { examplesOpener } from './open-examples';
export { RunFolderError } from './run-folder';
export type { IfExists } from './run-folder';
export {
  cacheableStage,
  cacheBytes,
  cachedInput,
  defaultCacheDir,
  featureKey,
  openFeatureCache,
  openStore,
} from './features';
export type { CachedStage, CacheOptions, FeatureCache, FeatureKey, FeatureStore } from './features';
export { createAdamW, decays, disposeAdamW, moments, updateAdamW } from './optimizer';
export type { AdamW, AdamWOptions } from './optimizer';
export { makeSchedule, SCHEDULERS, warmupSteps } from './schedule';
export type { Schedule, ScheduleOptions, SchedulerType } from './schedule';
export { initialState, stepsPerEpoch, train } from './train';
export type { Ending, LogRow, Progress, TrainHooks, TrainOptions, TrainResult, TrainState } from './train';
export { layerScale } from './layer-decay';
export type { TrainingSample } from './fit-logs';
export { NonFiniteError } from './train-step';
export type { TrainParts } from './train-step';
export {
  findCheckpoint,
  listCheckpoints,
  restoreCheckpoint,
  rotateCheckpoints,
  writeCheckpoint,
} from './checkpoint';
export type { Checkpoint, Damaged, RunIdentity } from './checkpoint';
export {
  CAPTION_FIGURES,
  DEGENERATION,
  figureTables,
  formatShare,
  formatTable,
  generateCaptions,
  judge,
  margin,
  namedFigures,
  referenceOf,
  scoreCaptions,
} from './evaluation';
export type {
  CaptionOptions,
  Figures,
  Judgement,
  JudgeOptions,
  ResultRow,
  ResultsTable,
  Score,
} from './evaluation';
export { writeReport } from './report';
export { spread } from './report/spread';
export type { MetricRow, RunResults, SampleRow } from './report';

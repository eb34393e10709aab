export type { Setting } from './fields';
export type { FitConfig } from './settings';
export {
  decodingOf,
  defaultConfig,
  fitSchema,
  hasLora,
  PRESETS,
  settings,
  shapingSettings,
} from './settings';
export { NO_TOWER, parseConfig } from './parse';
export { ConfigError } from './checks';
export { evaluationMetrics, greaterIsBetter, OF_TYPE, RECALL_METRICS } from './metric';
export {
  applyOverrides,
  commentedYaml,
  fromYaml,
  readConfigFile,
  SCHEMA_FILE,
  SCHEMA_LINE,
  toYaml,
} from './yaml';

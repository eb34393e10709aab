export type { FitConfig, PresetName } from './settings';
export { parseConfig, PRESETS } from './settings';
export { ConfigError, nearest } from './checks';
export { defaultConfig, hasLora } from './defaults';
export { applyOverrides, fromYaml, readConfigFile, toYaml } from './yaml';
export { evaluationMetrics, greaterIsBetter, OF_TYPE } from './metric';

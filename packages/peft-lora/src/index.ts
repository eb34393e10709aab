export { AdapterError } from './errors';
export { formatLoraConfig, loraConfig, parseLoraConfig } from './config';
export type { LoraConfig } from './config';
export { matchTargets } from './match';
export type { LoraTarget, Shapes } from './match';
export { addLora, loraDelta, loraParts, mergeLora, safeMergeLora, unmergeLora, withoutLora } from './lora';
export { applyPreset, countPreset, presetLora, presetOf, presets, trainable, trainableLine } from './presets';
export type { Prepared, Preset, PresetCount, PresetName } from './presets';
export type { AdapterBase } from './ties';
export { readAdapter } from './adapter';
export type { Adapter, AdapterSource, HostTensor, LoraMatrices } from './adapter';
export { adapterFiles } from './adapter-files';
export { applyAdapter } from './apply';
export { weightedAdapter } from './weighted';
export type { CombinationType, WeightedOptions } from './weighted';
export {
  adapterSet,
  addAdapter,
  addWeightedAdapter,
  deleteAdapter,
  disableAdapters,
  setAdapter,
} from './adapter-set';
export type { AdapterSet } from './adapter-set';

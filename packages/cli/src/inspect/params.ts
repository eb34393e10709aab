/** Counts the parameters that a preset trains, from tensor shapes alone. */
import { adapterBase, blip2Weights, parseConfig } from '@blip2/blip2';
import { loadConfig } from '@blip2/blip2/node';
import { countPreset, presetOf, trainableLine } from '@blip2/peft-lora';
import type { PresetName } from '@blip2/peft-lora';
import { firstStageWeights } from '@blip2/retrieval';
import { isRetrievalFolder, loadRetrievalConfig } from '@blip2/retrieval/node';
import { RETRIEVAL_BASE, retrievalPreset } from '@blip2/trainer';
import { modelDir } from '../model';
import type { Ui } from '../ui';
import { FULL_SIZE, FULL_SIZE_NAME } from './full-size';

export interface ParamFlags {
  preset: string;
  model?: string;
  r?: number;
  targetModules?: string[];
  list?: boolean;
}

export async function inspectParams(flags: ParamFlags, ui: Ui): Promise<void> {
  const { table, preset, base } = await countedModel(flags);
  const { r, targetModules: target_modules } = flags;
  // countPreset throws for an unknown name and lists the known ones
  const count = countPreset(table, preset, { r, target_modules }, base);
  const line = trainableLine(count.trainable, count.all);
  const value = { model: flags.model ?? FULL_SIZE_NAME, preset: flags.preset, ...count, line };
  ui.result(value, () => [line, ...(flags.list ? [...count.modules, ...count.names] : [])].join('\n'));
}

/** The weights of the model, and what the preset trains of such a model. */
async function countedModel({ model, preset }: ParamFlags) {
  if (model !== undefined && isRetrievalFolder(modelDir(model))) {
    const table = firstStageWeights(await loadRetrievalConfig(modelDir(model)));
    return { table, preset: retrievalPreset({ preset: presetName(preset) }), base: RETRIEVAL_BASE };
  }
  const config = model === undefined ? parseConfig(FULL_SIZE) : await loadConfig(modelDir(model));
  return { table: blip2Weights(config), preset: preset as PresetName, base: adapterBase(config) };
}

/** @throws AdapterError for an unknown name, listing the known ones */
function presetName(name: string): PresetName {
  presetOf(name as PresetName);
  return name as PresetName;
}

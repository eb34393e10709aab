/** Counts the parameters that a preset trains, from tensor shapes alone. */
import { adapterBase, blip2Weights, parseConfig } from '@blip2/blip2';
import { loadConfig } from '@blip2/blip2/node';
import { countPreset, trainableLine } from '@blip2/peft-lora';
import type { PresetName } from '@blip2/peft-lora';
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
  const config = flags.model === undefined ? parseConfig(FULL_SIZE) : await loadConfig(modelDir(flags.model));
  const { r, targetModules: target_modules } = flags;
  // countPreset throws for an unknown name and lists the known ones
  const count = countPreset(
    blip2Weights(config),
    flags.preset as PresetName,
    { r, target_modules },
    adapterBase(config),
  );
  const line = trainableLine(count.trainable, count.all);
  const value = { model: flags.model ?? FULL_SIZE_NAME, preset: flags.preset, ...count, line };
  ui.result(value, () => [line, ...(flags.list ? [...count.modules, ...count.names] : [])].join('\n'));
}

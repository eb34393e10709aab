/** What the presets train of a model for retrieval. */
import { presets } from '@blip2/peft-lora';
import type { AdapterBase, Preset, PresetName } from '@blip2/peft-lora';
import type { FitConfig } from '../config';
import { ConfigError } from '../config';

/** LAVIS's choice: all but the vision tower. */
export const RETRIEVAL_PRESET = 'qformer-projection';

/** PEFT's default of BERT, which the Q-Former is. The vision tower has no modules of these names. */
export const RETRIEVAL_BASE: AdapterBase = { ties: [], lora_targets: ['query', 'value'] };

const PATTERNS: Readonly<Record<Exclude<PresetName, 'lora+qformer'>, readonly string[]>> = {
  lora: [],
  qformer: ['^qformer\\.'],
  'qformer-projection': [
    ...['^qformer\\.', '^query_tokens$', '^embeddings\\.', '_projection\\.', '^itm_head\\.'],
  ],
  full: ['.'],
};

/** Trains in every run, and is not part of the result. */
const FIRST_STAGE = '^first_stage\\.';

/** @throws ConfigError for a preset that needs a language model */
export function retrievalPreset({
  preset,
  also_train = [],
}: Pick<FitConfig, 'preset'> & Partial<Pick<FitConfig, 'also_train'>>): Preset {
  if (preset === 'lora+qformer')
    throw new ConfigError('preset', [
      'lora+qformer puts adapters into a language model, which a model for retrieval does not have; expected ' +
        `${Object.keys(PATTERNS).join(', ')}. ${RETRIEVAL_PRESET} trains all but the vision tower, lora adapts the Q-Former`,
    ]);
  return { lora: presets[preset].lora, patterns: [...PATTERNS[preset], ...also_train, FIRST_STAGE] };
}

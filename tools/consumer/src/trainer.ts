import { applyOverrides, defaultConfig, fit, parseConfig, toYaml, writeReport } from '@blip2/trainer';
import type { FitConfig, FitResult, PresetName } from '@blip2/trainer';
import { same } from './types.js';

const config = defaultConfig('qformer');

same<typeof config, FitConfig>(true);
same<ReturnType<typeof parseConfig>, FitConfig>(true);
same<ReturnType<typeof fit>, Promise<FitResult>>(true);
same<ReturnType<typeof toYaml>, string>(true);
same<ReturnType<typeof writeReport>, Promise<string>>(true);
same<PresetName, 'lora' | 'qformer' | 'qformer-projection' | 'lora+qformer' | 'full'>(true);
same<ReturnType<typeof applyOverrides>, Record<string, unknown>>(true);
// @ts-expect-error what is written as text is parsed first
void fit({ model: 'models/blip2-emoji-mini' });

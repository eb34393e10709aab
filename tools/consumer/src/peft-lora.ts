import type { Variable } from '@blip2/nn';
import {
  adapterFiles,
  addLora,
  applyPreset,
  loraConfig,
  mergeLora,
  readAdapter,
  trainable,
} from '@blip2/peft-lora';
import { loadAdapter, saveAdapter } from '@blip2/peft-lora/node';
import type { Adapter, LoraConfig, Prepared } from '@blip2/peft-lora';
import type { TensorToWrite } from '@blip2/weights';
import { same } from './types.js';

const tree = { layers: [1, 2] };
const adapted = applyPreset(tree, 'lora', { r: 8 });
const merged = mergeLora(tree);

same<typeof adapted, Prepared<{ layers: number[] }>>(true);
same<typeof merged, { layers: number[] }>(true);
same<ReturnType<typeof loraConfig>, LoraConfig>(true);
same<ReturnType<typeof trainable>, Map<string, Variable>>(true);
same<ReturnType<typeof loadAdapter>, Promise<Adapter>>(true);
same<ReturnType<typeof readAdapter>, Promise<Adapter>>(true);
same<ReturnType<typeof adapterFiles>, Map<string, string | TensorToWrite[]>>(true);
same<ReturnType<typeof saveAdapter>, Promise<void>>(true);
// @ts-expect-error a preset that there is not
applyPreset(tree, 'adapter');
// @ts-expect-error a rank is a number
addLora(tree, { r: '8' }, 0);

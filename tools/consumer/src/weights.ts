import { checkTable, floatToBfloat } from '@blip2/weights';
import { openWeights, pullModel, writeSafetensors } from '@blip2/weights/node';
import type { TensorEntry, WeightReader } from '@blip2/weights';
import type { Pulled } from '@blip2/weights/node';
import { same } from './types.js';

same<ReturnType<typeof openWeights>, Promise<WeightReader>>(true);
same<ReturnType<typeof pullModel>, Promise<Pulled>>(true);
same<ReturnType<typeof floatToBfloat>, Uint16Array>(true);
same<ReturnType<typeof checkTable>, Map<string, TensorEntry>>(true);
same<ReturnType<typeof writeSafetensors>, Promise<void>>(true);
// @ts-expect-error metadata are texts
void writeSafetensors('model.safetensors', [], { step: 1 });

/** What is compared: the presets, and LoRA in other places and of other ranks. */
import type { PresetName } from '@blip2/trainer';

export interface Variant {
  name: string;
  /** settings of `blip2 fit` */
  preset: PresetName;
  lora?: Record<string, unknown>;
  /** one of the main ones, which are measured for every data set and size */
  main: boolean;
  /** also trains in the vision tower, so that nothing can be cached */
  whole?: boolean;
}

const ATTENTION = ['q_proj', 'k_proj', 'v_proj', 'out_proj'];

export const VARIANTS: readonly Variant[] = [
  { name: 'lora', preset: 'lora', main: true },
  { name: 'qformer-projection', preset: 'qformer-projection', main: true },
  { name: 'lora+qformer', preset: 'lora+qformer', main: true },
  {
    name: 'lora, all linear',
    preset: 'lora',
    lora: { target_modules: 'all-linear' },
    main: true,
    whole: true,
  },
  { name: 'full', preset: 'full', main: true, whole: true },
  { name: 'qformer', preset: 'qformer', main: false },
  { name: 'lora, r 4', preset: 'lora', lora: { r: 4 }, main: false },
  { name: 'lora, r 64', preset: 'lora', lora: { r: 64 }, main: false },
  {
    name: 'lora, upper 2 of 4 layers',
    preset: 'lora',
    lora: { target_modules: ATTENTION, layers_to_transform: [2, 3], layers_pattern: ['layers'] },
    main: false,
  },
  {
    name: 'lora, with the MLPs of OPT',
    preset: 'lora',
    lora: { target_modules: String.raw`language_model\..*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)` },
    main: false,
  },
  {
    name: 'lora on the Q-Former',
    preset: 'lora',
    lora: { target_modules: String.raw`qformer\..*\.(query|key|value|dense)` },
    main: false,
  },
];

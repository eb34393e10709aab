/** Prints the settings and modules of an adapter. */
import { loadAdapter } from '@blip2/peft-lora/node';
import type { LoraConfig } from '@blip2/peft-lora';
import { resolveModel } from '@blip2/weights/node';
import type { Ui } from '../ui';

export async function inspectAdapter(dir: string, ui: Ui): Promise<void> {
  const { config, lora, tensors } = await loadAdapter(resolveModel(dir));
  const matrices = [...lora.values()].flatMap((parts) => Object.values(parts) as Data[]);
  const [adapted, full] = [countOf(matrices), countOf(tensors.values())];
  const names = { modules: [...lora.keys()], tensors: [...tensors.keys()] };
  const settings = Object.fromEntries(SETTINGS.map((name) => [name, config[name]]));
  const value = { adapter: dir, ...settings, parameters: adapted + full, ...names };
  ui.result(value, () =>
    [
      ...settingLines(config),
      `${adapted.toLocaleString('en')} LoRA parameters in ${lora.size} modules, ${full.toLocaleString('en')} in ${tensors.size} fully trained tensors`,
      ...names.modules.map((name) => `  ${name}`),
      ...names.tensors.map((name) => `  ${name} (fully trained)`),
    ].join('\n'),
  );
}

type Data = { data: ArrayLike<number> };
const countOf = (parts: Iterable<Data>) => [...parts].reduce((sum, { data }) => sum + data.length, 0);

/** The settings that affect the adapter's computation. */
const SETTINGS: readonly (keyof LoraConfig)[] = [
  'r',
  'lora_alpha',
  'lora_dropout',
  'target_modules',
  'use_dora',
  'use_rslora',
  'lora_bias',
  'bias',
  'modules_to_save',
  'rank_pattern',
  'alpha_pattern',
];

/** A line of settings that every adapter has, and one of those that differ from their defaults. */
function settingLines(config: LoraConfig): string[] {
  const { r, lora_alpha, lora_dropout, target_modules, modules_to_save } = config;
  const patternNames = ['rank_pattern', 'alpha_pattern'] as const;
  const patterns = patternNames.filter((name) => Object.keys(config[name]).length > 0);
  const special = [
    ...(config.use_dora ? ['DoRA'] : []),
    ...(config.use_rslora ? ['rsLoRA'] : []),
    ...(config.lora_bias ? ['lora_bias'] : []),
    ...(config.bias === 'none' ? [] : [`bias ${config.bias}`]),
    ...patterns.map((name) => `${name} ${JSON.stringify(config[name])}`),
    ...(modules_to_save ? [`modules_to_save ${modules_to_save.join(', ')}`] : []),
  ];
  const targets = [target_modules ?? []].flat().join(', ');
  const usual = `r ${r}, lora_alpha ${lora_alpha}, lora_dropout ${lora_dropout}, target_modules ${targets}`;
  return special.length > 0 ? [usual, special.join(', ')] : [usual];
}

/** Settings and modules of an adapter folder. */
import { loadAdapter } from '@blip2/peft-lora';
import { resolveModel } from '@blip2/weights';
import type { Ui } from '../ui';

export async function inspectAdapter(dir: string, ui: Ui): Promise<void> {
  const { config, lora, tensors } = await loadAdapter(resolveModel(dir));
  const parameters = [...lora.values()]
    .flatMap((matrices) => Object.values(matrices) as { data: Float32Array }[])
    .reduce((sum, { data }) => sum + data.length, 0);
  const whole = [...tensors.values()].reduce((sum, { data }) => sum + data.length, 0);
  const { r, lora_alpha, lora_dropout, target_modules, bias, modules_to_save } = config;
  const { use_dora, use_rslora, lora_bias, rank_pattern, alpha_pattern } = config;
  const modules = [...lora.keys()];
  const value = {
    adapter: dir,
    r,
    lora_alpha,
    lora_dropout,
    target_modules,
    ...{ use_dora, use_rslora, lora_bias, bias, modules_to_save, rank_pattern, alpha_pattern },
    parameters: parameters + whole,
    modules,
  };
  const special = [
    use_dora && 'DoRA',
    use_rslora && 'rsLoRA',
    lora_bias && 'lora_bias',
    bias !== 'none' && `bias ${bias}`,
    Object.keys(rank_pattern).length > 0 && `rank_pattern ${JSON.stringify(rank_pattern)}`,
    Object.keys(alpha_pattern).length > 0 && `alpha_pattern ${JSON.stringify(alpha_pattern)}`,
    modules_to_save && `modules_to_save ${modules_to_save.join(', ')}`,
  ].filter((text) => typeof text === 'string');
  ui.result({ ...value, tensors: [...tensors.keys()] }, () =>
    [
      `r ${r}, lora_alpha ${lora_alpha}, lora_dropout ${lora_dropout}, target_modules ${[target_modules ?? []].flat().join(', ')}`,
      ...(special.length > 0 ? [special.join(', ')] : []),
      `${parameters.toLocaleString('en')} LoRA parameters in ${modules.length} modules, ${whole.toLocaleString('en')} in ${tensors.size} whole tensors`,
      ...modules.map((name) => `  ${name}`),
      ...[...tensors.keys()].map((name) => `  ${name} (whole)`),
    ].join('\n'),
  );
}

/** Settings and modules of an adapter folder. */
import { loadAdapter } from '@blip2/peft-lora';
import type { Ui } from '../ui';

export async function inspectAdapter(dir: string, ui: Ui): Promise<void> {
  const { config, lora, tensors } = await loadAdapter(dir);
  const parameters = [...lora.values()].reduce((sum, { A, B }) => sum + A.data.length + B.data.length, 0);
  const whole = [...tensors.values()].reduce((sum, { data }) => sum + data.length, 0);
  const { r, lora_alpha, lora_dropout, target_modules } = config;
  const modules = [...lora.keys()];
  const value = {
    adapter: dir,
    r,
    lora_alpha,
    lora_dropout,
    target_modules,
    parameters: parameters + whole,
    modules,
  };
  ui.result({ ...value, tensors: [...tensors.keys()] }, () =>
    [
      `r ${r}, lora_alpha ${lora_alpha}, lora_dropout ${lora_dropout}, target_modules ${[target_modules ?? []].flat().join(', ')}`,
      `${parameters.toLocaleString('en')} LoRA parameters in ${modules.length} modules, ${whole.toLocaleString('en')} in ${tensors.size} whole tensors`,
      ...modules.map((name) => `  ${name}`),
      ...[...tensors.keys()].map((name) => `  ${name} (whole)`),
    ].join('\n'),
  );
}

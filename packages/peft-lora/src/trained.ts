/** The base tensors that a configuration trains: `modules_to_save` and `bias`, by PEFT's rules (peft 0.21). */
import type { LoraConfig } from './config';
import { AdapterError, list } from './errors';

/** Modules above a tensor: `a.b.weight` → `a`, `a.b`. */
export function modulesAbove(name: string): string[] {
  const segments = name.split('.');
  return segments.slice(1).map((_, i) => segments.slice(0, i + 1).join('.'));
}

/** Whether a tensor is in a module whose name ends with `saved`; PEFT does not require a dot before it. */
export function liesIn(name: string, saved: string): boolean {
  return modulesAbove(name).some((module) => module.endsWith(saved));
}

/**
 * Tensors of `modules_to_save`.
 * @throws AdapterError for an entry that matches nothing, or a list of layers, which PEFT cannot wrap
 */
export function trainedModules({ modules_to_save }: LoraConfig, names: readonly string[]): string[] {
  const saved = modules_to_save ?? [];
  if (saved.length === 0) return [];
  const problems = saved
    .filter((entry) => !names.some((name) => liesIn(name, entry)))
    .map((entry) => `"${entry}" matches no module`);
  const modules = [...new Set(names.flatMap(modulesAbove))];
  const lists = new Set(modules.filter((m) => /\.\d+$/.test(m)).map((m) => m.slice(0, m.lastIndexOf('.'))));
  for (const module of lists) {
    if (saved.some((entry) => module.endsWith(entry)))
      problems.push(`"${module}" is a list of layers; name a module in it or above it`);
  }
  if (problems.length > 0) throw new AdapterError(`modules_to_save:\n${list(problems)}`, problems);
  return names.filter((name) => saved.some((entry) => liesIn(name, entry)));
}

/** Full names of the biases that `bias` trains; `adapted` are the modules with LoRA. */
export function trainedBiases(
  { bias }: LoraConfig,
  names: readonly string[],
  adapted: readonly string[],
): string[] {
  if (bias === 'none') return [];
  const own = new Set(adapted.map((module) => `${module}.bias`));
  return names.filter((name) => (bias === 'all' ? name.endsWith('.bias') : own.has(name)));
}

/**
 * @throws AdapterError for `bias: "all"` with whole modules: PEFT then stores each of their biases three times, one of
 *   them the base's, trained without effect
 */
export function checkBias({ bias, modules_to_save }: LoraConfig): void {
  if (bias === 'all' && modules_to_save && modules_to_save.length > 0)
    throw new AdapterError(
      `bias: expected "none" or "lora_only" together with modules_to_save (${modules_to_save.join(', ')}), found "all"`,
    );
}

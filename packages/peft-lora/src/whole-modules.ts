/** Finds the whole modules among trained tensors, because PEFT's `modules_to_save` stores only modules. */
import { modulesAbove } from './trained';

/**
 * Splits trained tensors into the topmost modules that train completely and the remaining tensors.
 * A module qualifies when all tensors in it train, none has LoRA, it is not a list of layers (which PEFT cannot wrap), and
 * no other module's name ends with its name (PEFT compares with `endswith`, without a dot).
 */
export function wholeModules(
  names: Iterable<string>,
  trained: ReadonlySet<string>,
  adapted: Iterable<string>,
): { modules: string[]; bare: string[] } {
  const tensors = [...names];
  const partial = new Set<string>();
  const all = new Set<string>();
  const lists = new Set<string>();
  for (const name of tensors) {
    const modules = modulesAbove(name);
    for (const [i, module] of modules.entries()) {
      all.add(module);
      if (!trained.has(name)) partial.add(module);
      if (/\.\d+$/.test(module)) lists.add(modules[i - 1]!);
    }
  }
  for (const module of adapted) for (const path of [...modulesAbove(module), module]) partial.add(path);
  const isAmbiguous = (module: string) =>
    [...all].some((other) => other !== module && other.endsWith(module));

  const modules = new Set<string>();
  const bare: string[] = [];
  for (const name of tensors) {
    if (!trained.has(name)) continue;
    const top = modulesAbove(name).find((m) => !partial.has(m) && !lists.has(m) && !isAmbiguous(m));
    if (top === undefined) bare.push(name);
    else modules.add(top);
  }
  return { modules: [...modules], bare };
}

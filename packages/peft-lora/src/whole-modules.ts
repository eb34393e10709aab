/** Which trained tensors make up whole modules, the only unit that PEFT's `modules_to_save` knows. */

/**
 * Splits trained tensors into the topmost modules that train completely and the tensors left over.
 * A module qualifies when all tensors below it train, none carries LoRA, it is no list of layers (PEFT refuses to wrap
 * those), and no other module's name ends with its own (PEFT compares by `endswith`, without a dot).
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
  const ancestors = (path: string) => {
    const segments = path.split('.');
    return segments.slice(1).map((_, i) => segments.slice(0, i + 1).join('.'));
  };
  for (const name of tensors) {
    const modules = ancestors(name);
    for (const [i, module] of modules.entries()) {
      all.add(module);
      if (!trained.has(name)) partial.add(module);
      if (/\.\d+$/.test(module)) lists.add(modules[i - 1]!);
    }
  }
  for (const module of adapted) for (const path of [...ancestors(module), module]) partial.add(path);
  const isAmbiguous = (module: string) =>
    [...all].some((other) => other !== module && other.endsWith(module));

  const modules = new Set<string>();
  const bare: string[] = [];
  for (const name of tensors) {
    if (!trained.has(name)) continue;
    const top = ancestors(name).find((m) => !partial.has(m) && !lists.has(m) && !isAmbiguous(m));
    if (top === undefined) bare.push(name);
    else modules.add(top);
  }
  return { modules: [...modules], bare };
}

/**
 * Tied tensors, of which the alias has no leaf in the tree. PEFT wraps modules, so an adapter that trains one of them, such
 * as `embed_tokens` or `lm_head`, unties them: the other keeps the base's values. The tree then needs a leaf for the alias.
 */
import { flatten } from '@blip2/nn';
import type { Tensor, Tie } from '@blip2/nn';
import type { WeightTable } from '@blip2/weights';
import type { LoraConfig } from './config';
import { isNamed } from './match';
import { liesIn, modulesAbove } from './trained';

/** Properties of a base model that adapters need; `adapterBase` of @blip2/blip2 returns them. */
export interface AdapterBase {
  ties: readonly Tie[];
  /** Modules that the presets with LoRA adapt, unless `target_modules` is given. */
  lora_targets: readonly string[];
}

/** Whether the two are tied in a tree (or table) with these names. */
export function isTied(
  { tensor, alias }: Tie,
  names: ReadonlySet<string> | ReadonlyMap<string, unknown>,
): boolean {
  return names.has(tensor) && !names.has(alias);
}

/** Whether the configuration unties the two. */
function unties({ modules_to_save, target_modules }: LoraConfig, { tensor, alias }: Tie): boolean {
  const saved = modules_to_save ?? [];
  // A module above the tensor's own is copied whole, which keeps the two tied.
  if (saved.some((entry) => modulesAbove(moduleOf(tensor)).some((module) => module.endsWith(entry))))
    return false;
  return (
    saved.some((entry) => liesIn(tensor, entry) || liesIn(alias, entry)) ||
    isTarget(target_modules, moduleOf(alias))
  );
}

const moduleOf = (name: string) => name.slice(0, name.lastIndexOf('.'));

function isTarget(targets: LoraConfig['target_modules'], module: string): boolean {
  if (typeof targets === 'string' && targets.toLowerCase() === 'all-linear') return false;
  return isNamed(targets, module);
}

/** The tree with a leaf for each alias that the configuration unties, which shares the tensor. */
export function untied<T extends object>(tree: T, config: LoraConfig, ties: readonly Tie[]): T {
  const leaves = flatten(tree);
  return ties
    .filter((tie) => isTied(tie, leaves) && unties(config, tie))
    .reduce((grown, { tensor, alias }) => withLeaf(grown, alias.split('.'), leaves.get(tensor)!), tree);
}

/** `untied` for names and shapes. */
export function untiedTable(table: WeightTable, config: LoraConfig, ties: readonly Tie[]): WeightTable {
  const shapes = new Map(table);
  const free = ties.filter((tie) => isTied(tie, shapes) && unties(config, tie));
  return [...table, ...free.map(({ tensor, alias }): WeightTable[number] => [alias, shapes.get(tensor)!])];
}

function withLeaf<T extends object>(tree: T, [first, ...rest]: readonly string[], leaf: Tensor): T {
  const child = (tree as Record<string, object>)[first] ?? {};
  return { ...tree, [first]: rest.length === 0 ? leaf : withLeaf(child, rest, leaf) };
}

/**
 * The head of a model whose word embeddings are tied has no tensor of its own. PEFT wraps modules, so an adapter that trains
 * `embed_tokens` or `lm_head` unties them: the other keeps the base's values. The tree then needs an `lm_head`.
 */
import { type Tensor, flatten } from '@blip2/nn';
import type { WeightTable } from '@blip2/weights';
import type { LoraConfig } from './config';
import { isNamed } from './match';
import { liesIn } from './trained';

export const EMBEDDINGS = 'language_model.model.decoder.embed_tokens.weight';
export const HEAD = 'language_model.lm_head.weight';

/** Is the head tied to the embeddings? Only a tree (or table) that has embeddings can say so. */
export function isTied(names: ReadonlySet<string> | ReadonlyMap<string, unknown>): boolean {
  return names.has(EMBEDDINGS) && !names.has(HEAD);
}

/** Does the configuration give embeddings or head values of their own? */
export function unties({ modules_to_save, target_modules }: LoraConfig): boolean {
  const saved = modules_to_save ?? [];
  // A module above both keeps them tied: it is copied whole.
  const ends = (name: string) => saved.some((entry) => liesIn(name, entry));
  if (ends(EMBEDDINGS) && ends('language_model.model.decoder.layers.0.fc1.weight')) return false;
  return ends(EMBEDDINGS) || ends(HEAD) || isHeadNamed(target_modules);
}

function isHeadNamed(targets: LoraConfig['target_modules']): boolean {
  if (typeof targets === 'string' && targets.toLowerCase() === 'all-linear') return false;
  return isNamed(targets, 'language_model.lm_head');
}

/** The tree, with an `lm_head` that shares the embeddings' tensor if the configuration unties the two. */
export function untied<T extends object>(tree: T, config: LoraConfig): T {
  const leaves = flatten(tree);
  if (!isTied(leaves) || !unties(config)) return tree;
  return withHead(tree, leaves.get(EMBEDDINGS)!);
}

/** The same for names and shapes. */
export function untiedTable(table: WeightTable, config: LoraConfig): WeightTable {
  const shape = table.find(([name]) => name === EMBEDDINGS)?.[1];
  const names = new Set(table.map(([name]) => name));
  return shape && isTied(names) && unties(config) ? [...table, [HEAD, shape]] : table;
}

function withHead<T extends object>(tree: T, weight: Tensor): T {
  const { language_model } = tree as unknown as { language_model: object };
  return { ...tree, language_model: { ...language_model, lm_head: { weight } } };
}

/** Several named adapters on one model, of which any number are active. Every function returns a new set. */
import { flatten } from '@blip2/nn';
import type { Tie } from '@blip2/nn';
import { applyAdapter } from './apply';
import { AdapterError } from './errors';
import type { Adapter } from './adapter';
import { refuseSecondAdapter } from './lora';
import { weightedAdapter } from './weighted';
import type { WeightedOptions } from './weighted';

export interface AdapterSet<T extends object> {
  /** The model without adapters; its tensors are shared by every tree. */
  base: T;
  /** Tied tensors of the model. */
  ties: readonly Tie[];
  adapters: ReadonlyMap<string, Adapter>;
  /** Names of the adapters in `tree`. */
  active: readonly string[];
  /** The model with the active adapters; `base` itself if there are none. */
  tree: T;
}

/** A set without adapters. */
export function adapterSet<T extends object>(base: T, ties: readonly Tie[] = []): AdapterSet<T> {
  refuseSecondAdapter(base);
  return { base, ties, adapters: new Map(), active: [], tree: base };
}

/** Adds an adapter, not active yet. @throws AdapterError when the name is taken */
export function addAdapter<T extends object>(
  set: AdapterSet<T>,
  name: string,
  adapter: Adapter,
): AdapterSet<T> {
  if (set.adapters.has(name))
    throw new AdapterError(`addAdapter: there is an adapter "${name}" already; delete it first`);
  return { ...set, adapters: new Map([...set.adapters, [name, adapter]]) };
}

/**
 * Activates exactly these adapters; several are added. Frees the tensors of the previous tree that are not in the base, so do
 * not use that tree any more.
 * @throws AdapterError for an unknown name, an adapter that does not fit, or several that cannot add up (DoRA, whole modules)
 */
export function setAdapter<T extends object>(
  set: AdapterSet<T>,
  names: string | readonly string[],
): AdapterSet<T> {
  const active = [names].flat();
  const chosen = active.map((name) => named(set, name));
  const one =
    chosen.length > 1
      ? weightedAdapter(chosen, { weights: chosen.map(() => 1), combination_type: 'cat' })
      : chosen[0];
  const tree = one ? applyAdapter(set.base, one, { ties: set.ties }) : set.base;
  release(set);
  return { ...set, active, tree };
}

/** Deactivates all adapters: the tree is the base. */
export function disableAdapters<T extends object>(set: AdapterSet<T>): AdapterSet<T> {
  return setAdapter(set, []);
}

/** Removes an adapter; the other active ones stay active. @throws AdapterError for an unknown name */
export function deleteAdapter<T extends object>(set: AdapterSet<T>, name: string): AdapterSet<T> {
  named(set, name);
  const active = set.active.filter((other) => other !== name);
  const rest = set.active.includes(name) ? setAdapter(set, active) : set;
  return { ...rest, adapters: new Map([...set.adapters].filter(([other]) => other !== name)) };
}

/** Adds a combination of adapters (see `weightedAdapter`) under a new name, not active yet. */
export function addWeightedAdapter<T extends object>(
  set: AdapterSet<T>,
  adapters: readonly string[],
  adapter_name: string,
  options: WeightedOptions,
): AdapterSet<T> {
  const chosen = adapters.map((name) => named(set, name));
  return addAdapter(set, adapter_name, weightedAdapter(chosen, options));
}

function named<T extends object>({ adapters }: AdapterSet<T>, name: string): Adapter {
  const adapter = adapters.get(name);
  if (!adapter)
    throw new AdapterError(
      `expected one of the adapters ${[...adapters.keys()].join(', ') || '(none yet)'}, found "${name}"`,
    );
  return adapter;
}

function release<T extends object>({ base, tree }: AdapterSet<T>): void {
  const kept = new Set(flatten(base).values());
  for (const leaf of flatten(tree).values()) if (!kept.has(leaf)) leaf.dispose();
}

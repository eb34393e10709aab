/** Several adapters on one model, by name; one, several or none act. Every function gives a new set. */
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
  /** Names of the adapters that act in `tree`. */
  active: readonly string[];
  /** The model to compute with: `base` itself when none is active. */
  tree: T;
}

/** A set without adapters. */
export function adapterSet<T extends object>(base: T, ties: readonly Tie[] = []): AdapterSet<T> {
  refuseSecondAdapter(base);
  return { base, ties, adapters: new Map(), active: [], tree: base };
}

/** The set with one more adapter, which does not act yet. @throws AdapterError when the name is taken */
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
 * Makes these adapters act, and no others; several add up. Frees what the former tree had beside the base: do not use that
 * tree any more.
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

/** Lets no adapter act: the tree is the base. */
export function disableAdapters<T extends object>(set: AdapterSet<T>): AdapterSet<T> {
  return setAdapter(set, []);
}

/** Forgets an adapter; if it acts, the others that act go on. @throws AdapterError for an unknown name */
export function deleteAdapter<T extends object>(set: AdapterSet<T>, name: string): AdapterSet<T> {
  named(set, name);
  const rest = set.active.includes(name)
    ? setAdapter(
        set,
        set.active.filter((other) => other !== name),
      )
    : set;
  return { ...rest, adapters: new Map([...set.adapters].filter(([other]) => other !== name)) };
}

/** Adds a combination of adapters of the set under a new name (see `weightedAdapter`); it does not act yet. */
export function addWeightedAdapter<T extends object>(
  set: AdapterSet<T>,
  adapters: readonly string[],
  adapter_name: string,
  options: WeightedOptions,
): AdapterSet<T> {
  return addAdapter(
    set,
    adapter_name,
    weightedAdapter(
      adapters.map((name) => named(set, name)),
      options,
    ),
  );
}

function named<T extends object>({ adapters }: AdapterSet<T>, name: string): Adapter {
  const adapter = adapters.get(name);
  if (!adapter)
    throw new AdapterError(
      `there is no adapter "${name}"; known: ${[...adapters.keys()].join(', ') || 'none'}`,
    );
  return adapter;
}

function release<T extends object>({ base, tree }: AdapterSet<T>): void {
  const kept = new Set(flatten(base).values());
  for (const leaf of flatten(tree).values()) if (!kept.has(leaf)) leaf.dispose();
}

/** Parameter trees: plain records and arrays of tensors whose dotted paths are the tensor names of the checkpoint. */
import { Tensor, Variable } from '@tensorflow/tfjs-core';
import { nearest } from './nearest';

export type ParamLeaf = Tensor | number | string | boolean | undefined;
export type ParamTree = ParamLeaf | readonly ParamTree[] | { readonly [name: string]: ParamTree };

/** Interfaces of models have no index signature, so tree functions accept any object. */
type AnyTree = object;

function* leaves(node: unknown, path: string): Generator<[string, Tensor]> {
  if (node instanceof Tensor) yield [path, node];
  else if (node !== null && typeof node === 'object') {
    for (const [name, child] of Object.entries(node)) yield* leaves(child, path ? `${path}.${name}` : name);
  }
}

/** All tensors of a tree by dotted name, in tree order. Numbers and other settings among the leaves are skipped. */
export function flatten(tree: AnyTree): Map<string, Tensor> {
  return new Map(leaves(tree, ''));
}

/** The inverse of `flatten`: dotted names to nested records; records whose keys are 0 … n − 1 become arrays. */
export function nest<T>(flat: Iterable<readonly [string, T]>): unknown {
  const root: Record<string, unknown> = {};
  for (const [name, leaf] of flat) {
    const segments = name.split('.');
    const last = segments.pop() as string;
    let node = root;
    for (const segment of segments) {
      const child = (node[segment] ??= {});
      if (Object.getPrototypeOf(child) !== Object.prototype)
        throw new Error(`nest: "${name}" lies inside "${segment}", which is a tensor`);
      node = child as Record<string, unknown>;
    }
    if (last in node) throw new Error(`nest: "${name}" is both a tensor and the folder of other tensors`);
    node[last] = leaf;
  }
  return arraysFromNumbers(root);
}

function arraysFromNumbers(node: unknown): unknown {
  if (node === null || typeof node !== 'object' || Object.getPrototypeOf(node) !== Object.prototype)
    return node;
  const entries = Object.entries(node).map(([name, child]) => [name, arraysFromNumbers(child)] as const);
  const isList =
    entries.length > 0 && entries.every(([name]) => /^\d+$/.test(name) && Number(name) < entries.length);
  return isList ? entries.map(([, child]) => child) : Object.fromEntries(entries);
}

/** A new tree of the same form with every tensor replaced by `f(name, tensor)`; settings are kept. */
export function replaceLeaves<T extends AnyTree>(tree: T, f: (name: string, tensor: Tensor) => Tensor): T {
  const visit = (node: unknown, path: string): unknown => {
    if (node instanceof Tensor) return f(path, node);
    if (node === null || typeof node !== 'object') return node;
    const child = (name: string, value: unknown) => visit(value, path ? `${path}.${name}` : name);
    if (Array.isArray(node)) return node.map((value, i) => child(String(i), value));
    return Object.fromEntries(Object.entries(node).map(([name, value]) => [name, child(name, value)]));
  };
  return visit(tree, '') as T;
}

/** Number of elements of all tensors; a tensor that occurs twice (tied weights) counts once. */
export function countParameters(tree: AnyTree | Iterable<Tensor>): number {
  const tensors =
    Symbol.iterator in tree && !Array.isArray(tree)
      ? [...(tree as Iterable<Tensor>)]
      : [...flatten(tree).values()];
  return [...new Set(tensors)].reduce((sum, tensor) => sum + tensor.size, 0);
}

/** Whether a leaf is trained: trained leaves are tfjs Variables, frozen leaves plain tensors. */
export function isTrainable(leaf: Tensor): leaf is Variable {
  return leaf instanceof Variable;
}

/** The Variables of a tree by name. */
export function trainableLeaves(tree: AnyTree): Map<string, Variable> {
  return new Map([...flatten(tree)].filter((entry): entry is [string, Variable] => isTrainable(entry[1])));
}

/**
 * Names that match one of the patterns (regular expressions, anywhere in the name), in the order of `names`.
 * @throws Error with the nearest names if a pattern matches nothing
 */
export function matchNames(names: Iterable<string>, patterns: readonly string[]): string[] {
  const all = [...names];
  const selected = new Set<string>();
  for (const pattern of patterns) {
    const regex = new RegExp(pattern);
    const hits = all.filter((name) => regex.test(name));
    if (hits.length === 0) {
      throw new Error(
        `matchNames: pattern "${pattern}" matches none of ${all.length} parameter names; nearest: ${nearest(pattern, all).join(', ')}`,
      );
    }
    for (const hit of hits) selected.add(hit);
  }
  return all.filter((name) => selected.has(name));
}

/** LoRA as data on a parameter tree (Hu et al. 2021): adding, removing, merging. Models do not know that adapters exist. */
import {
  add,
  type Linear,
  type LoraPart,
  type Tensor,
  type Tensor2D,
  type Variable,
  flatten,
  fold,
  linear,
  normal,
  rngKey,
  scale,
  tensor,
  tidy,
  transpose,
  uniform,
  variable,
} from '@blip2/nn';
import { type LoraConfig, loraConfig } from './config';
import { AdapterError } from './errors';
import { type LoraTarget, matchTargets } from './match';

/**
 * A new tree with a fresh, trainable adapter on every target of the configuration; base tensors are shared, not copied.
 * A fresh adapter changes no output, because B is zero (unless `init_lora_weights` is false).
 * @param seed values depend on the seed and the module's name only
 * @throws AdapterError for a bad configuration, a target that matches nothing, or a tree that already has an adapter
 */
export function addLora<T extends object>(
  tree: T,
  options: Partial<LoraConfig>,
  seed: number,
): { tree: T; modules: string[] } {
  const config = loraConfig(options);
  refuseSecondAdapter(tree);
  const targets = matchTargets(config, shapesOf(tree));
  const parts = new Map(targets.map((target) => [target.module, freshPart(target, config, seed)]));
  return { tree: withParts(tree, parts), modules: [...parts.keys()] };
}

/** The modules of a tree that carry an adapter, in tree order. */
export function loraParts(tree: object): Map<string, LoraPart> {
  const parts = new Map<string, LoraPart>();
  mapRecords(tree, (path, record) => {
    if (isPart(record['lora'])) parts.set(path, record['lora']);
    return record;
  });
  return parts;
}

/** The tree without adapters: the base model's tensors, shared. */
export function withoutLora<T extends object>(tree: T): T {
  return mapRecords(tree, (_, record) => {
    if (!isPart(record['lora'])) return record;
    const rest = { ...record };
    delete rest['lora'];
    return rest;
  });
}

/**
 * A tree without adapters whose weights contain them: W + scaling · B·A. Only adapted weights are new tensors.
 * The result gives the outputs of the adapted tree in evaluation, up to rounding.
 */
export function mergeLora<T extends object>(tree: T): T {
  return mapRecords(tree, (_, record) => {
    if (!isPart(record['lora'])) return record;
    const { lora, ...rest } = record as unknown as Linear & { lora: LoraPart };
    return { ...rest, weight: tidy(() => add(rest.weight, loraDelta(lora))) };
  });
}

/** scaling · B·A, the change that an adapter makes to its weight: [out, in]. */
export function loraDelta({ lora_A: A, lora_B: B, scaling }: LoraPart): Tensor2D {
  const swapped = transpose(A.weight, [1, 0]); // [in, r]
  return scale(linear({ weight: swapped }, B.weight), scaling); // [out, r] · [r, in] = [out, in]
}

/** Names and shapes of a tree's tensors. */
export function shapesOf(tree: object): [name: string, shape: number[]][] {
  return [...flatten(tree)].map(([name, { shape }]) => [name, shape]);
}

/** A new tree with these adapters attached to their Linears. */
export function withParts<T extends object>(tree: T, parts: ReadonlyMap<string, LoraPart>): T {
  return mapRecords(tree, (path, record) => {
    const lora = parts.get(path);
    return lora ? { ...record, lora } : record;
  });
}

/** @throws AdapterError when some Linear already has an adapter: one at a time, merge or remove the first */
export function refuseSecondAdapter(tree: object): void {
  const first = loraParts(tree).keys().next();
  if (!first.done) {
    throw new AdapterError(
      `${first.value} already has an adapter; merge it (mergeLora) or remove it (withoutLora) first`,
    );
  }
}

/** A Variable that holds host values; nothing else keeps them. */
export function variableOf(values: Float32Array, shape: readonly number[], name: string): Variable {
  const value = tensor(values, shape);
  const leaf = variable(value, name);
  value.dispose();
  return leaf;
}

/** A ~ U(±1/√in), PyTorch's kaiming_uniform(a = √5); B = 0. */
function freshPart(
  { module, in: width, out, r, scaling }: LoraTarget,
  config: LoraConfig,
  seed: number,
): LoraPart {
  const key = (name: string) => fold(rngKey(seed), `${module}.${name}.weight`);
  const within = (name: string, count: number, fanIn: number) =>
    uniform(key(name), count).map((u) => (2 * u - 1) / Math.sqrt(fanIn));
  const A =
    config.init_lora_weights === 'gaussian'
      ? normal(key('lora_A'), r * width).map((z) => z / r)
      : within('lora_A', r * width, width);
  const B = config.init_lora_weights === false ? within('lora_B', out * r, r) : new Float32Array(out * r);
  return {
    lora_A: { weight: variableOf(A, [r, width], `${module}.lora_A`) as Tensor as Tensor2D },
    lora_B: { weight: variableOf(B, [out, r], `${module}.lora_B`) as Tensor as Tensor2D },
    scaling,
    dropout: config.lora_dropout,
  };
}

type Fields = Record<string, unknown>;

/** A new tree, each record replaced by `f(path, record)` after its children were. Tensors are shared. */
function mapRecords<T extends object>(tree: T, f: (path: string, record: Fields) => Fields): T {
  const tensors = new Set<unknown>(flatten(tree).values());
  const visit = (node: unknown, path: string): unknown => {
    if (node === null || typeof node !== 'object' || tensors.has(node)) return node;
    const child = (name: string | number, value: unknown) =>
      visit(value, path === '' ? String(name) : `${path}.${name}`);
    if (Array.isArray(node)) return node.map((value, i) => child(i, value));
    return f(
      path,
      Object.fromEntries(Object.entries(node).map(([name, value]) => [name, child(name, value)])),
    );
  };
  return visit(tree, '') as T;
}

function isPart(value: unknown): value is LoraPart {
  return typeof value === 'object' && value !== null && 'lora_A' in value && 'lora_B' in value;
}

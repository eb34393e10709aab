/** LoRA as data on a parameter tree (Hu et al. 2021): adding, removing, merging. Models do not know that adapters exist. */
import {
  add,
  div,
  doraNorm,
  flatten,
  linear,
  mul,
  replaceLeaves,
  reshape,
  scale,
  sub,
  tensor,
  tidy,
  transpose,
  variable,
} from '@blip2/nn';
import type { Linear, LoraPart, Tensor, Tensor1D, Tensor2D, Tie, Variable } from '@blip2/nn';
import { loraConfig } from './config';
import type { LoraConfig } from './config';
import { AdapterError, list } from './errors';
import { freshMatrices } from './init';
import { matchTargets } from './match';
import type { LoraTarget } from './match';
import { checkBias, trainedBiases, trainedModules } from './trained';
import { untied } from './ties';

/**
 * A new tree with a fresh, trainable adapter on every target of the configuration; base tensors are shared, not copied,
 * but for those that `bias` and `modules_to_save` train: they become Variables.
 * A fresh adapter changes no output, because B is zero (unless `init_lora_weights` is false).
 * @param seed values depend on the seed and the module's name only
 * @param ties the model's tied tensors, which the configuration may untie
 * @throws AdapterError for a bad configuration, a target that matches nothing, or a tree that already has an adapter
 */
export function addLora<T extends object>(
  tree: T,
  options: Partial<LoraConfig>,
  seed: number,
  ties: readonly Tie[] = [],
): { tree: T; modules: string[] } {
  const config = loraConfig(options);
  refuseSecondAdapter(tree);
  checkBias(config);
  const base = untied(tree, config, ties);
  const leaves = flatten(base);
  const names = [...leaves.keys()];
  const modules = trainedModules(config, names);
  const targets = matchTargets(config, shapesOf(base));
  const whole = new Set([...modules, ...trainedBiases(config, names, targets)]);
  const parts = new Map(
    targets.map((target) => [
      target.module,
      freshPart(target, config, seed, leaves.get(`${target.module}.weight`) as Tensor2D),
    ]),
  );
  const trained = replaceLeaves(base, (name, leaf) => (whole.has(name) ? variable(leaf, name) : leaf));
  return { tree: withParts(trained, parts), modules: [...parts.keys()] };
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
 * A tree without adapters whose weights contain them: W + scaling · B·A, with DoRA's row lengths if it has them; a bias of
 * lora_B goes into the base's. Only adapted weights are new tensors; the tree given stays as it is, so keeping it is the exact
 * way back. The result gives the outputs of the adapted tree in evaluation, up to rounding.
 * @throws AdapterError when lora_B has a bias and the base Linear none
 */
export function mergeLora<T extends object>(tree: T): T {
  return mapRecords(tree, (path, record) => {
    if (!isPart(record['lora'])) return record;
    const { lora, ...rest } = record as unknown as Linear & { lora: LoraPart };
    const extra = lora.lora_B.bias;
    if (extra && !rest.bias)
      throw new AdapterError(
        `${path}: lora_B has a bias (lora_bias) that a Linear without bias cannot take up`,
      );
    return {
      ...rest,
      weight: tidy(() => mergedWeight(rest.weight, lora)),
      ...(extra && { bias: tidy(() => add(rest.bias!, scale(extra, lora.scaling))) }),
    };
  });
}

/**
 * `mergeLora` with PEFT's safe_merge: nothing comes back when a merged value is not finite.
 * @throws AdapterError with every module whose merged weight or bias holds NaN or an infinite value
 */
export async function safeMergeLora<T extends object>(tree: T): Promise<T> {
  const merged = mergeLora(tree);
  const leaves = flatten(merged);
  const broken: string[] = [];
  for (const module of loraParts(tree).keys()) {
    for (const name of [`${module}.weight`, `${module}.bias`]) {
      const values = await leaves.get(name)?.data();
      if (values && !values.every(Number.isFinite)) broken.push(name);
    }
  }
  if (broken.length === 0) return merged;
  throw new AdapterError(
    `merging makes values that are not finite; the adapter seems to be broken:\n${list(broken)}`,
    broken,
  );
}

/**
 * The inverse of `mergeLora` for a tree whose unmerged form is gone: subtracts the adapters of `adapted`, up to rounding.
 * @throws AdapterError for DoRA, whose row norms cannot be known after merging: keep the unmerged tree instead
 */
export function unmergeLora<T extends object>(merged: T, adapted: object): T {
  const parts = loraParts(adapted);
  return mapRecords(merged, (path, record) => {
    const lora = parts.get(path);
    if (!lora) return record;
    if (lora.lora_magnitude_vector)
      throw new AdapterError(`${path}: a merged DoRA cannot be subtracted; keep the unmerged tree instead`);
    const { weight, bias } = record as unknown as Linear;
    const extra = lora.lora_B.bias;
    return {
      ...record,
      weight: tidy(() => sub(weight, loraDelta(lora))),
      ...(extra && { bias: tidy(() => sub(bias!, scale(extra, lora.scaling))) }),
    };
  });
}

function mergedWeight(weight: Tensor2D, lora: LoraPart): Tensor2D {
  const sum = add(weight, loraDelta(lora)); // [out, in]
  const magnitude = lora.lora_magnitude_vector;
  if (!magnitude) return sum;
  return mul(sum, reshape(div(magnitude, doraNorm(weight, lora)), [-1, 1]));
}

/** scaling · B·A, the change that an adapter makes to its weight (without DoRA): [out, in]. */
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

function freshPart(target: LoraTarget, config: LoraConfig, seed: number, weight: Tensor2D): LoraPart {
  const { module, in: width, out, r, scaling } = target;
  const { A, B, bias } = freshMatrices(target, config, seed);
  const part: LoraPart = {
    lora_A: { weight: variableOf(A, [r, width], `${module}.lora_A`) as Tensor as Tensor2D },
    lora_B: { weight: variableOf(B, [out, r], `${module}.lora_B`) as Tensor as Tensor2D },
    scaling,
    dropout: config.lora_dropout,
  };
  if (bias) part.lora_B.bias = variableOf(bias, [out], `${module}.lora_B.bias`) as Tensor as Tensor1D;
  if (!config.use_dora) return part;
  const norms = tidy(() => doraNorm(weight, part));
  part.lora_magnitude_vector = variable(norms, `${module}.lora_magnitude_vector`) as Tensor as Tensor1D;
  norms.dispose();
  return part;
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

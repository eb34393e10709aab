/** Adds, removes and merges LoRA (Hu et al. 2021) as data on a parameter tree. Models contain no code for adapters. */
import {
  add,
  div,
  doraNorm,
  flatten,
  isQuantised,
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
 * A new tree with a fresh, trainable adapter on every target of the configuration. Base tensors are shared, except those
 * that `bias` and `modules_to_save` train, which become Variables.
 * A fresh adapter changes no output, because B is zero (unless `init_lora_weights` is false).
 * @param seed of the initial values, which also depend on the module's name
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
  const adapted = targets.map(({ module }) => module);
  const whole = new Set([...modules, ...trainedBiases(config, names, adapted)]);
  const parts = new Map(
    targets.map((target) => [
      target.module,
      freshPart(target, config, seed, leaves.get(`${target.module}.weight`) as Tensor2D),
    ]),
  );
  const trained = replaceLeaves(base, (name, leaf) => (whole.has(name) ? variable(leaf, name) : leaf));
  return { tree: withParts(trained, parts), modules: adapted };
}

/** The modules of a tree with an adapter, in tree order. */
export function loraParts(tree: object): Map<string, LoraPart> {
  const parts = new Map<string, LoraPart>();
  mapRecords(tree, (path, record) => {
    if (isPart(record['lora'])) parts.set(path, record['lora']);
    return record;
  });
  return parts;
}

/** The tree without adapters; shares the base's tensors. */
export function withoutLora<T extends object>(tree: T): T {
  return mapRecords(tree, (_, record) => {
    if (!isPart(record['lora'])) return record;
    const rest = { ...record };
    delete rest['lora'];
    return rest;
  });
}

/**
 * Merges adapters into the weights: W + scaling · B·A, rescaled to DoRA's row lengths if used; a bias of lora_B is added to
 * the base's. Up to rounding the outputs equal those of the adapted tree in evaluation. Only adapted weights are new
 * tensors, and `tree` is unchanged, so keep it to unmerge exactly.
 * @throws AdapterError when lora_B has a bias but the base Linear has none
 */
export function mergeLora<T extends object>(tree: T): T {
  return mapRecords(tree, (path, record) => {
    if (!isPart(record['lora'])) return record;
    const { lora, ...rest } = record as unknown as Linear & { lora: LoraPart };
    const extra = lora.lora_B.bias;
    if (isQuantised(rest.weight))
      throw new AdapterError(
        `${path}: the weight was rounded to int8, and an adapter belongs to the exact one; load the model in another precision to merge`,
      );
    if (extra && !rest.bias)
      throw new AdapterError(
        `${path}: expected a Linear with a bias, because lora_B has one (lora_bias), found none`,
      );
    return {
      ...rest,
      weight: tidy(() => mergedWeight(rest.weight, lora)),
      ...(extra && { bias: tidy(() => add(rest.bias!, scale(extra, lora.scaling))) }),
    };
  });
}

/**
 * `mergeLora` with the check of PEFT's safe_merge.
 * @throws AdapterError that lists every merged weight or bias with NaN or an infinite value
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
    `merging: expected finite values, found NaN or infinity; the adapter seems to be broken:\n${list(broken)}`,
    broken,
  );
}

/**
 * The inverse of `mergeLora`, up to rounding: subtracts the adapters of `adapted`.
 * @throws AdapterError for DoRA, because merging loses the row norms
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

/** scaling · B·A [out, in], an adapter's change of its weight (without DoRA). */
export function loraDelta({ lora_A: A, lora_B: B, scaling }: LoraPart): Tensor2D {
  const transposed = transpose(A.weight, [1, 0]); // [in, r]
  return scale(linear({ weight: transposed }, B.weight), scaling); // [out, r] · [r, in] = [out, in]
}

/** Names and shapes of a tree's tensors. */
export function shapesOf(tree: object): [name: string, shape: number[]][] {
  return [...flatten(tree)].map(([name, { shape }]) => [name, shape]);
}

/** A new tree with these adapters, by module name, on its Linears. */
export function withParts<T extends object>(tree: T, parts: ReadonlyMap<string, LoraPart>): T {
  return mapRecords(tree, (path, record) => {
    const lora = parts.get(path);
    return lora ? { ...record, lora } : record;
  });
}

/** @throws AdapterError when a Linear already has an adapter */
export function refuseSecondAdapter(tree: object): void {
  const first = loraParts(tree).keys().next();
  if (!first.done) {
    throw new AdapterError(
      `${first.value} already has an adapter; merge it (mergeLora) or remove it (withoutLora) first`,
    );
  }
}

/** A Variable with host values. */
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

/** A new tree with each record replaced by `f(path, record)`, children first. Tensors are shared. */
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

/**
 * The files of PEFT's adapter folder: adapter_config.json, adapter_model.safetensors, README.md (peft 0.21 `save_and_load.py`).
 * Whole trained modules are stored as PEFT's `modules_to_save`. Trained tensors outside modules, such as BLIP-2's
 * `query_tokens`, are stored under their names in the model: PEFT loads every tensor of the file for which the model has a
 * name, as it does with `save_embedding_layers`.
 */
import { flatten, isTrainable } from '@blip2/nn';
import type { LoraPart, Tensor, Tie } from '@blip2/nn';
import type { TensorToWrite } from '@blip2/weights';
import { CONFIG, PREFIX, WEIGHTS } from './adapter';
import { NO_TARGETS, formatLoraConfig, loraConfig } from './config';
import type { LoraConfig } from './config';
import { AdapterError, list } from './errors';
import { loraParts, shapesOf, withoutLora } from './lora';
import { matchTargets } from './match';
import { modelCard } from './model-card';
import { isTied } from './ties';
import { checkBias, trainedBiases, trainedModules } from './trained';
import { wholeModules } from './whole-modules';

/**
 * The files of a PEFT adapter folder for the LoRA and the trained tensors of `tree`: name → text, or the tensors of a
 * safetensors file, whose values are read when it is written.
 * @param options the LoRA configuration of the tree; not needed without LoRA
 * @param ties the model's tied tensors
 * @param folder where the files will be, for the code in README.md
 * @throws AdapterError when configuration and tree contradict each other, or nothing or everything trains
 */
export function adapterFiles(
  tree: object,
  options: Partial<LoraConfig> = {},
  ties: readonly Tie[] = [],
  folder = 'ADAPTER_FOLDER',
): Map<string, string | TensorToWrite[]> {
  const parts = loraParts(tree);
  const base = flatten(withoutLora(tree));
  const trained = new Set([...base].filter(([, leaf]) => isTrainable(leaf)).map(([name]) => name));
  if (parts.size + trained.size === 0)
    throw new AdapterError(`saveAdapter: nothing to save: no LoRA and no trainable tensor`);
  if (trained.size === base.size)
    throw new AdapterError(`saveAdapter: every tensor trains; save the whole model, not an adapter`);
  for (const tie of ties.filter((one) => isTied(one, base) && trained.has(one.tensor))) {
    base.set(tie.alias, base.get(tie.tensor)!); // PEFT unties modules that it wraps, so both names are stored
    trained.add(tie.alias);
  }
  const { config, modules, biases, bare } = describe(tree, parts, base, trained, options);

  const stored = new Map<string, Tensor>();
  for (const [module, part] of parts) storePart(stored, module, part);
  for (const name of modules) stored.set(`${PREFIX}${name}`, base.get(name)!);
  for (const name of biases) stored.set(`${PREFIX}${keyOf(name, parts)}`, base.get(name)!);
  for (const name of adaptedHeads(parts)) stored.set(`${PREFIX}${keyOf(name, parts)}`, base.get(name)!);
  for (const name of bare) stored.set(`${PREFIX}${keyOf(name, parts)}`, base.get(name)!);

  const whole = config.modules_to_save ?? [];
  const files = new Map<string, string | TensorToWrite[]>([[WEIGHTS, toWrite(stored)]]);
  files.set('README.md', modelCard(config, { modules: [...parts.keys()], whole, bare, folder }));
  return files.set(CONFIG, formatLoraConfig(config));
}

function storePart(stored: Map<string, Tensor>, module: string, part: LoraPart): void {
  const { lora_A, lora_B, lora_magnitude_vector: magnitude } = part;
  stored.set(`${PREFIX}${module}.lora_A.weight`, lora_A.weight);
  stored.set(`${PREFIX}${module}.lora_B.weight`, lora_B.weight);
  if (lora_B.bias) stored.set(`${PREFIX}${module}.lora_B.bias`, lora_B.bias);
  if (magnitude) stored.set(`${PREFIX}${module}.lora_magnitude_vector`, magnitude);
}

/** PEFT's name of a base tensor; tensors of an adapted module are in its `base_layer`. */
function keyOf(name: string, parts: ReadonlyMap<string, LoraPart>): string {
  const module = name.slice(0, name.lastIndexOf('.'));
  return parts.has(module) ? `${module}.base_layer${name.slice(module.length)}` : name;
}

/** Base weights that PEFT also stores, tied or not: those of a head with LoRA (`EMBEDDING_LAYER_NAMES`). */
function adaptedHeads(parts: ReadonlyMap<string, LoraPart>): string[] {
  return [...parts.keys()]
    .filter((module) => /(^|\.)lm_head$/.test(module))
    .map((module) => `${module}.weight`);
}

interface Description {
  config: LoraConfig;
  /** Tensors of whole modules. */
  modules: string[];
  /** Trained biases. */
  biases: string[];
  /** Trained tensors outside modules. */
  bare: string[];
}

/** The configuration to store, checked against the tree, and where each trained tensor goes. */
function describe(
  tree: object,
  parts: ReadonlyMap<string, LoraPart>,
  base: ReadonlyMap<string, Tensor>,
  trained: ReadonlySet<string>,
  options: Partial<LoraConfig>,
): Description {
  const other = { ...options.other };
  delete other['extra_trainables']; // of version 0.1, which stored them in another file
  const requested = loraConfig({
    ...options,
    ...(parts.size === 0 ? { target_modules: NO_TARGETS } : {}),
    other,
  });
  const names = [...base.keys()];
  const biases = trainedBiases(requested, names, [...parts.keys()]);
  const named = trainedModules(requested, names);
  const known = new Set([...named, ...biases]);
  const rest = new Set([...trained].filter((name) => !known.has(name)));
  const { modules: added, bare } = wholeModules(names, rest, parts.keys());
  const whole = [...(requested.modules_to_save ?? []), ...added];
  const config = loraConfig({
    ...requested,
    modules_to_save: whole.length > 0 ? whole : null,
    other,
  });
  checkBias(config);
  checkParts(config, tree, parts);
  const modules = names.filter((name) => named.includes(name) || (rest.has(name) && !bare.includes(name)));
  return { config, modules, biases, bare };
}

/** @throws AdapterError when the tree's adapters differ from the configuration */
function checkParts(config: LoraConfig, tree: object, parts: ReadonlyMap<string, LoraPart>): void {
  // Not strict, because PEFT's files contain targets that match nothing; the adapters are compared below.
  const targets = matchTargets(config, shapesOf(tree), false);
  const expected = new Map(targets.map((target) => [target.module, target]));
  const problems: string[] = [];
  const summary = (r: number, scaling: number, dora: boolean, bias: boolean) =>
    `r ${r}, scaling ${scaling}${dora ? ', DoRA' : ''}${bias ? ', bias' : ''}`;
  for (const [module, { r, scaling }] of expected) {
    const part = parts.get(module);
    const configured = summary(r, scaling, config.use_dora, config.lora_bias);
    // The scaling is compared with a tolerance, because another program may have rounded it.
    const isSame = part && Math.abs(part.scaling - scaling) <= 1e-6 * Math.abs(scaling);
    const found =
      part &&
      summary(
        part.lora_A.weight.shape[0],
        isSame ? scaling : part.scaling,
        part.lora_magnitude_vector !== undefined,
        part.lora_B.bias !== undefined,
      );
    if (found !== configured)
      problems.push(`${module}: the configuration has ${configured}, the tree has ${found ?? 'no adapter'}`);
  }
  for (const module of parts.keys())
    if (!expected.has(module))
      problems.push(`${module}: the tree has an adapter, the configuration has none`);
  if (problems.length > 0)
    throw new AdapterError(`saveAdapter: configuration and tree differ:\n${list(problems)}`, problems);
}

function toWrite(tensors: ReadonlyMap<string, Tensor>): TensorToWrite[] {
  return [...tensors].map(([name, value]) => ({
    name,
    dtype: 'F32',
    shape: value.shape,
    data: async () => (await value.data()) as Float32Array,
  }));
}

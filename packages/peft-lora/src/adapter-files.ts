/**
 * The files of PEFT's adapter folder: adapter_config.json, adapter_model.safetensors, README.md (peft 0.21 `save_and_load.py`).
 * Beside LoRA, whole trained modules go the way PEFT has for them (`modules_to_save`). Trained tensors that are no module,
 * such as BLIP-2's `query_tokens`, have no place in that layout: they go to extra_trainables.safetensors under their own
 * names, and the field `extra_trainables` in adapter_config.json makes PEFT warn about it instead of staying silent.
 */
import { flatten, isTrainable } from '@blip2/nn';
import type { LoraPart, Tensor, Tie } from '@blip2/nn';
import type { TensorToWrite } from '@blip2/weights';
import { CONFIG, EXTRA, PREFIX, WEIGHTS } from './adapter';
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
 * The files of a PEFT adapter folder for everything that trains in `tree` or carries LoRA: name → text, or the tensors of a
 * safetensors file, whose values are read when it is written.
 * @param options the LoRA configuration the tree was made with; a tree without LoRA needs none
 * @param ties the model's tied tensors
 * @throws AdapterError when configuration and tree contradict each other, or nothing or everything trains
 */
export function adapterFiles(
  tree: object,
  options: Partial<LoraConfig> = {},
  ties: readonly Tie[] = [],
): Map<string, string | TensorToWrite[]> {
  const parts = loraParts(tree);
  const base = flatten(withoutLora(tree));
  const trained = new Set([...base].filter(([, leaf]) => isTrainable(leaf)).map(([name]) => name));
  if (parts.size + trained.size === 0)
    throw new AdapterError(`saveAdapter: nothing to save: no LoRA and no trainable tensor`);
  if (trained.size === base.size)
    throw new AdapterError(`saveAdapter: every tensor trains; save the whole model, not an adapter`);
  for (const tie of ties.filter((one) => isTied(one, base) && trained.has(one.tensor))) {
    base.set(tie.alias, base.get(tie.tensor)!); // PEFT unties what it wraps, so both names are stored
    trained.add(tie.alias);
  }
  const { config, modules, biases, bare } = describe(tree, parts, base, trained, options);

  const stored = new Map<string, Tensor>();
  for (const [module, part] of parts) storePart(stored, module, part);
  for (const name of modules) stored.set(`${PREFIX}${name}`, base.get(name)!);
  for (const name of biases) stored.set(`${PREFIX}${keyOf(name, parts)}`, base.get(name)!);
  for (const name of adaptedAliases(parts, ties))
    stored.set(`${PREFIX}${keyOf(name, parts)}`, base.get(name)!);
  const extra = new Map(bare.map((name) => [name, base.get(name)!]));

  const whole = config.modules_to_save ?? [];
  const files = new Map<string, string | TensorToWrite[]>([[WEIGHTS, toWrite(stored)]]);
  if (extra.size > 0) files.set(EXTRA, toWrite(extra));
  files.set('README.md', modelCard(config, { modules: [...parts.keys()], whole, bare }));
  return files.set(CONFIG, formatLoraConfig(config));
}

function storePart(stored: Map<string, Tensor>, module: string, part: LoraPart): void {
  const { lora_A, lora_B, lora_magnitude_vector: magnitude } = part;
  stored.set(`${PREFIX}${module}.lora_A.weight`, lora_A.weight);
  stored.set(`${PREFIX}${module}.lora_B.weight`, lora_B.weight);
  if (lora_B.bias) stored.set(`${PREFIX}${module}.lora_B.bias`, lora_B.bias);
  if (magnitude) stored.set(`${PREFIX}${module}.lora_magnitude_vector`, magnitude);
}

/** PEFT's name of a base tensor: that of an adapted module lies in `base_layer`. */
function keyOf(name: string, parts: ReadonlyMap<string, LoraPart>): string {
  const module = name.slice(0, name.lastIndexOf('.'));
  return parts.has(module) ? `${module}.base_layer${name.slice(module.length)}` : name;
}

/** PEFT stores the base's own weight too where a module that can be tied, such as the head, is a target. */
function adaptedAliases(parts: ReadonlyMap<string, LoraPart>, ties: readonly Tie[]): string[] {
  return [...parts.keys()]
    .map((module) => `${module}.weight`)
    .filter((name) => ties.some((tie) => tie.alias === name));
}

interface Description {
  config: LoraConfig;
  /** Tensors of whole modules. */
  modules: string[];
  /** Trained biases. */
  biases: string[];
  /** Trained tensors that PEFT has no place for. */
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
  delete other['extra_trainables']; // decided anew from what trains
  const given = loraConfig({
    ...options,
    ...(parts.size === 0 ? { target_modules: NO_TARGETS } : {}),
    other,
  });
  const names = [...base.keys()];
  const biases = trainedBiases(
    given,
    names,
    [...parts.keys()].map((module) => ({ module })),
  );
  const named = trainedModules(given, names);
  const known = new Set([...named, ...biases]);
  const rest = new Set([...trained].filter((name) => !known.has(name)));
  const { modules: added, bare } = wholeModules(names, rest, parts.keys());
  const whole = [...(given.modules_to_save ?? []), ...added];
  const config = loraConfig({
    ...given,
    modules_to_save: whole.length > 0 ? whole : null,
    other: bare.length > 0 ? { ...other, extra_trainables: EXTRA } : other,
  });
  checkBias(config);
  checkParts(config, tree, parts);
  const modules = names.filter((name) => named.includes(name) || (rest.has(name) && !bare.includes(name)));
  return { config, modules, biases, bare };
}

/** @throws AdapterError when the tree's adapters are not those that the configuration describes */
function checkParts(config: LoraConfig, tree: object, parts: ReadonlyMap<string, LoraPart>): void {
  // Leniently: PEFT's files name targets that match nothing, and what matters is compared below.
  const targets = matchTargets(config, shapesOf(tree), false);
  const expected = new Map(targets.map((target) => [target.module, target]));
  const problems: string[] = [];
  const words = (r: number, scaling: number, dora: boolean, bias: boolean) =>
    `r ${r}, scaling ${scaling}${dora ? ', DoRA' : ''}${bias ? ', bias' : ''}`;
  for (const [module, { r, scaling }] of expected) {
    const part = parts.get(module);
    const wanted = words(r, scaling, config.use_dora, config.lora_bias);
    // The scaling is compared to a tolerance: a file of another program may have rounded it.
    const isSame = part && Math.abs(part.scaling - scaling) <= 1e-6 * Math.abs(scaling);
    const found =
      part &&
      words(
        part.lora_A.weight.shape[0],
        isSame ? scaling : part.scaling,
        part.lora_magnitude_vector !== undefined,
        part.lora_B.bias !== undefined,
      );
    if (found !== wanted)
      problems.push(`${module}: the configuration says ${wanted}, the tree has ${found ?? 'no adapter'}`);
  }
  for (const module of parts.keys())
    if (!expected.has(module)) problems.push(`${module}: the tree has an adapter, the configuration none`);
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

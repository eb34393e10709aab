/**
 * PEFT's adapter folder: adapter_config.json, adapter_model.safetensors, README.md (peft 0.21 `save_and_load.py`).
 * Beside LoRA, whole trained modules go the way PEFT has for them (`modules_to_save`). Trained tensors that are no module,
 * such as BLIP-2's `query_tokens`, have no place in that layout: they go to extra_trainables.safetensors under their own
 * names, and the field `extra_trainables` in adapter_config.json makes PEFT warn about it instead of staying silent.
 */
import { access, mkdir, readFile, rename, rm } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { type LoraPart, type Tensor, type Tie, flatten, isTrainable } from '@blip2/nn';
import type { TensorToWrite } from '@blip2/weights';
import { WeightsError } from '@blip2/weights';
import { openWeights, writeFileAtomic, writeSafetensors } from '@blip2/weights/node';
import {
  type LoraConfig,
  NO_TARGETS,
  formatLoraConfig,
  isRecord,
  loraConfig,
  parseLoraConfig,
} from './config';
import { AdapterError, list } from './errors';
import { loraParts, shapesOf, withoutLora } from './lora';
import { matchTargets } from './match';
import { modelCard } from './model-card';
import { isTied } from './ties';
import { checkBias, liesIn, trainedBiases, trainedModules } from './trained';
import { wholeModules } from './whole-modules';

const CONFIG = 'adapter_config.json';
const WEIGHTS = 'adapter_model.safetensors';
export const EXTRA = 'extra_trainables.safetensors';
const PREFIX = 'base_model.model.';

/** A tensor on the host. */
export interface HostTensor {
  shape: number[];
  data: Float32Array;
}

/** One module's adapter. A [r, in], B [out, r]; [out]: lora_B's bias (`lora_bias`) and DoRA's magnitudes (`use_dora`). */
export interface LoraMatrices {
  A: HostTensor;
  B: HostTensor;
  bias?: HostTensor;
  magnitude?: HostTensor;
}

/** An adapter folder in memory; it belongs to no tree yet. */
export interface Adapter {
  /** The folder, for messages. */
  where: string;
  config: LoraConfig;
  /** By module name. */
  lora: Map<string, LoraMatrices>;
  /** Base tensors that were trained whole, by full name. */
  tensors: Map<string, HostTensor>;
}

/**
 * Writes everything that trains in `tree`, or carries LoRA, as a PEFT adapter folder. The files are complete before the
 * folder appears or, where it exists, before any is replaced; other files in it are left alone.
 * @param options the LoRA configuration the tree was made with; a tree without LoRA needs none
 * @param ties the model's tied tensors
 * @throws AdapterError when configuration and tree contradict each other, or nothing or everything trains
 */
export async function saveAdapter(
  dir: string,
  tree: object,
  options: Partial<LoraConfig> = {},
  ties: readonly Tie[] = [],
): Promise<void> {
  const parts = loraParts(tree);
  const base = flatten(withoutLora(tree));
  const trained = new Set([...base].filter(([, leaf]) => isTrainable(leaf)).map(([name]) => name));
  if (parts.size + trained.size === 0)
    throw new AdapterError(`${dir}: nothing to save: no LoRA and no trainable tensor`);
  if (trained.size === base.size)
    throw new AdapterError(`${dir}: every tensor trains; save the whole model, not an adapter`);
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

  await replaceFolder(
    dir,
    extra.size > 0 ? [WEIGHTS, EXTRA, 'README.md', CONFIG] : [WEIGHTS, 'README.md', CONFIG],
    async (at) => {
      await writeSafetensors(join(at, WEIGHTS), toWrite(stored), { format: 'pt' });
      if (extra.size > 0) await writeSafetensors(join(at, EXTRA), toWrite(extra), { format: 'pt' });
      await writeFileAtomic(
        join(at, 'README.md'),
        modelCard(config, { modules: [...parts.keys()], whole: config.modules_to_save ?? [], bare }),
      );
      await writeFileAtomic(join(at, CONFIG), formatLoraConfig(config));
    },
  );
}

/**
 * Reads an adapter folder, written here or by PEFT; tensors become float32.
 * @throws AdapterError for an absent or broken file, an unsupported option, or a tensor whose name has no meaning
 */
export async function loadAdapter(dir: string): Promise<Adapter> {
  const config = parseLoraConfig(await readConfig(dir), join(dir, CONFIG));
  const stored = await readTensors(join(dir, WEIGHTS), dir);
  const extra = join(dir, EXTRA);
  const promised = config.other['extra_trainables'] !== undefined;
  const tensors =
    promised || (await exists(extra)) ? await readTensors(extra, dir) : new Map<string, HostTensor>();

  const found = new Map<string, Partial<LoraMatrices>>();
  const problems: string[] = [];
  for (const [key, value] of stored) {
    const name = key.startsWith(PREFIX) ? key.slice(PREFIX.length) : '';
    const place = placeOf(name, config);
    if (place === undefined) problems.push(`unexpected "${key}" [${value.shape.join(', ')}]`);
    else if (place.part) found.set(place.module, { ...found.get(place.module), [place.part]: value });
    else if (place.tensor) tensors.set(place.tensor, value);
  }
  problems.push(...incomplete(found, tensors, config));
  if (problems.length > 0)
    throw new AdapterError(`${join(dir, WEIGHTS)} does not fit its ${CONFIG}:\n${list(problems)}`, problems);
  return { where: dir, config, lora: found as Adapter['lora'], tensors };
}

const PARTS = {
  '.lora_A.weight': 'A',
  '.lora_B.weight': 'B',
  '.lora_B.bias': 'bias',
  '.lora_magnitude_vector': 'magnitude',
} as const;

type Place = { module: string; part: keyof LoraMatrices } | { part?: undefined; tensor?: string };

/** What a stored name, without its prefix, stands for; undefined if the configuration has no place for it. */
function placeOf(name: string, config: LoraConfig): Place | undefined {
  for (const [end, part] of Object.entries(PARTS)) {
    const isWanted = part === 'bias' ? config.lora_bias : part !== 'magnitude' || config.use_dora;
    if (isWanted && name.endsWith(end)) return { module: name.slice(0, -end.length), part };
  }
  // With bias "all", PEFT stores a whole module's biases again under its wrapper's names; they are the same or unused.
  if (config.bias === 'all' && /\.(modules_to_save|original_module)\.bias$/.test(name)) return {};
  if ((config.modules_to_save ?? []).some((saved) => liesIn(name, saved))) return { tensor: name };
  const adapted = /^(.+)\.base_layer\.(weight|bias)$/.exec(name);
  if (adapted?.[2] === 'weight') return { tensor: `${adapted[1]}.weight` };
  if (adapted && config.bias !== 'none') return { tensor: `${adapted[1]}.bias` };
  return config.bias === 'all' && name.endsWith('.bias') ? { tensor: name } : undefined;
}

/** What the file lacks to fit its configuration. */
function incomplete(
  found: ReadonlyMap<string, Partial<LoraMatrices>>,
  tensors: ReadonlyMap<string, HostTensor>,
  config: LoraConfig,
): string[] {
  const problems: string[] = [];
  for (const [module, matrices] of found) {
    for (const [end, part] of Object.entries(PARTS)) {
      const isWanted = part === 'bias' ? config.lora_bias : part === 'magnitude' ? config.use_dora : true;
      if (isWanted && !matrices[part]) problems.push(`missing "${PREFIX}${module}${end}"`);
    }
  }
  for (const module of config.modules_to_save ?? []) {
    if (![...tensors.keys()].some((name) => liesIn(name, module)))
      problems.push(`missing all tensors of modules_to_save "${module}"`);
  }
  return problems;
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

async function readConfig(dir: string): Promise<unknown> {
  const file = join(dir, CONFIG);
  try {
    const json: unknown = JSON.parse(await readFile(file, 'utf8'));
    if (isRecord(json)) return json;
    throw new Error('not a JSON object');
  } catch (error) {
    throw new AdapterError(
      `${file}: expected a PEFT adapter configuration: ${(error as Error).message}`,
      undefined,
      { cause: error },
    );
  }
}

async function readTensors(file: string, dir: string): Promise<Map<string, HostTensor>> {
  try {
    const reader = await openWeights(file);
    try {
      const tensors = new Map<string, HostTensor>();
      for (const { name, shape } of reader.entries.values())
        tensors.set(name, { shape, data: await reader.readFloat32(name) });
      return tensors;
    } finally {
      await reader.close();
    }
  } catch (error) {
    if (!(error instanceof WeightsError)) throw error;
    const legacy = await exists(join(dir, 'adapter_model.bin'));
    const hint = legacy ? '; adapter_model.bin is a pickle: load it in PEFT and save it again' : '';
    throw new AdapterError(`${error.message}${hint}`, error.problems, { cause: error });
  }
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

let folders = 0;

/** Fills a temporary folder beside `dir`, then gives it its name, or moves its files over those of an existing folder. */
async function replaceFolder(
  dir: string,
  files: readonly string[],
  fill: (at: string) => Promise<void>,
): Promise<void> {
  const target = resolve(dir);
  await mkdir(dirname(target), { recursive: true });
  const temporary = join(dirname(target), `.${basename(target)}.${process.pid}-${folders++}.tmp`);
  await mkdir(temporary);
  try {
    await fill(temporary);
    if (!(await exists(target))) return await rename(temporary, target);
    for (const file of files) await rename(join(temporary, file), join(target, file));
    if (!files.includes(EXTRA)) await rm(join(target, EXTRA), { force: true });
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

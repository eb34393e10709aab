/**
 * PEFT's adapter folder: adapter_config.json, adapter_model.safetensors, README.md (peft 0.21 `save_and_load.py`).
 * Beside LoRA, whole trained modules go the way PEFT has for them (`modules_to_save`). Trained tensors that are no module,
 * such as BLIP-2's `query_tokens`, have no place in that layout: they go to extra_trainables.safetensors under their own
 * names, and the field `extra_trainables` in adapter_config.json makes PEFT warn about it instead of staying silent.
 */
import { access, mkdir, readFile, rename, rm } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { type LoraPart, type Tensor, flatten, isTrainable } from '@blip2/nn';
import {
  type TensorToWrite,
  WeightsError,
  openWeights,
  writeFileAtomic,
  writeSafetensors,
} from '@blip2/weights';
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

/** An adapter folder in memory; it belongs to no tree yet. */
export interface Adapter {
  /** The folder, for messages. */
  where: string;
  config: LoraConfig;
  /** Module name → its pair. A [r, in], B [out, r]. */
  lora: Map<string, { A: HostTensor; B: HostTensor }>;
  /** Base tensors that were trained whole, by full name. */
  tensors: Map<string, HostTensor>;
}

/**
 * Writes everything that trains in `tree`, or carries LoRA, as a PEFT adapter folder. The files are complete before the
 * folder appears or, where it exists, before any is replaced; other files in it are left alone.
 * @param options the LoRA configuration the tree was made with; a tree without LoRA needs none
 * @throws AdapterError when configuration and tree contradict each other, or nothing or everything trains
 */
export async function saveAdapter(
  dir: string,
  tree: object,
  options: Partial<LoraConfig> = {},
): Promise<void> {
  const parts = loraParts(tree);
  const base = flatten(withoutLora(tree));
  const trained = new Set([...base].filter(([, leaf]) => isTrainable(leaf)).map(([name]) => name));
  if (parts.size + trained.size === 0)
    throw new AdapterError(`${dir}: nothing to save: no LoRA and no trainable tensor`);
  if (trained.size === base.size)
    throw new AdapterError(`${dir}: every tensor trains; save the whole model, not an adapter`);
  const { modules, bare } = wholeModules(base.keys(), trained, parts.keys());
  const config = describe(tree, parts, modules, bare, options);

  const stored = new Map<string, Tensor>();
  for (const [module, part] of parts) {
    stored.set(`${PREFIX}${module}.lora_A.weight`, part.lora_A.weight);
    stored.set(`${PREFIX}${module}.lora_B.weight`, part.lora_B.weight);
  }
  for (const name of trained) if (!bare.includes(name)) stored.set(`${PREFIX}${name}`, base.get(name)!);
  const extra = new Map(bare.map((name) => [name, base.get(name)!]));

  await replaceFolder(
    dir,
    extra.size > 0 ? [WEIGHTS, EXTRA, 'README.md', CONFIG] : [WEIGHTS, 'README.md', CONFIG],
    async (at) => {
      await writeSafetensors(join(at, WEIGHTS), toWrite(stored), { format: 'pt' });
      if (extra.size > 0) await writeSafetensors(join(at, EXTRA), toWrite(extra), { format: 'pt' });
      await writeFileAtomic(
        join(at, 'README.md'),
        modelCard(config, { modules: [...parts.keys()], whole: modules, bare }),
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

  const halves = new Map<string, { A?: HostTensor; B?: HostTensor }>();
  const problems: string[] = [];
  for (const [key, value] of stored) {
    const name = key.startsWith(PREFIX) ? key.slice(PREFIX.length) : undefined;
    const lora = /^(.+)\.lora_([AB])\.weight$/.exec(name ?? '');
    if (lora) halves.set(lora[1]!, { ...halves.get(lora[1]!), [lora[2]!]: value });
    else if (name !== undefined && (config.modules_to_save ?? []).some((m) => `.${name}`.includes(`.${m}.`)))
      tensors.set(name, value);
    else problems.push(`unexpected "${key}" [${value.shape.join(', ')}]`);
  }
  const lora: Adapter['lora'] = new Map();
  for (const [module, { A, B }] of halves) {
    if (A && B) lora.set(module, { A, B });
    else problems.push(`missing "${PREFIX}${module}.lora_${A ? 'B' : 'A'}.weight"`);
  }
  for (const module of config.modules_to_save ?? []) {
    if (![...tensors.keys()].some((name) => `.${name}`.includes(`.${module}.`)))
      problems.push(`missing all tensors of modules_to_save "${module}"`);
  }
  if (problems.length > 0)
    throw new AdapterError(`${join(dir, WEIGHTS)} does not fit its ${CONFIG}:\n${list(problems)}`, problems);
  return { where: dir, config, lora, tensors };
}

/** The configuration to store, checked against the tree. */
function describe(
  tree: object,
  parts: ReadonlyMap<string, LoraPart>,
  modules: readonly string[],
  bare: readonly string[],
  options: Partial<LoraConfig>,
): LoraConfig {
  const other = { ...options.other };
  delete other['extra_trainables']; // decided anew from what trains
  const config = loraConfig({
    ...options,
    ...(parts.size === 0 ? { target_modules: NO_TARGETS } : {}),
    modules_to_save: modules.length > 0 ? [...modules] : null,
    other: bare.length > 0 ? { ...other, extra_trainables: EXTRA } : other,
  });
  const expected = new Map(matchTargets(config, shapesOf(tree)).map((target) => [target.module, target]));
  const problems: string[] = [];
  for (const [module, { r, scaling }] of expected) {
    const part = parts.get(module);
    const found = part && `r ${part.lora_A.weight.shape[0]}, scaling ${part.scaling}`;
    const isSame =
      part &&
      part.lora_A.weight.shape[0] === r &&
      Math.abs(part.scaling - scaling) <= 1e-6 * Math.abs(scaling);
    if (!isSame)
      problems.push(
        `${module}: the configuration says r ${r}, scaling ${scaling}, the tree has ${found ?? 'no adapter'}`,
      );
  }
  for (const module of parts.keys())
    if (!expected.has(module)) problems.push(`${module}: the tree has an adapter, the configuration none`);
  if (problems.length > 0)
    throw new AdapterError(`saveAdapter: configuration and tree differ:\n${list(problems)}`, problems);
  return config;
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

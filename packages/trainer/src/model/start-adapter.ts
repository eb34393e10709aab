/** An adapter that a run starts from: its LoRA settings, its base, and its weights as the initial values. */
import { existsSync, realpathSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { dispose, flatten } from '@blip2/nn';
import type { Tensor, Tie, Variable } from '@blip2/nn';
import type { Adapter, LoraConfig } from '@blip2/peft-lora';
import { AdapterError, applyAdapter } from '@blip2/peft-lora';
import { loadAdapter } from '@blip2/peft-lora/node';
import { resolveModel } from '@blip2/weights/node';
import type { FitConfig } from '../config';
import { ConfigError } from '../config';
import { loraFields } from '../config/lora';
import { baseFingerprint } from '../run/identity';

type Raw = Record<string, unknown>;

/** Of `init_lora_weights` nothing is left in a trained adapter. */
const LORA_KEYS = Object.keys(loraFields).filter((key) => key !== 'init_lora_weights');

/** An adapter's folder. @throws AdapterError for a run folder or a whole model, with what to give instead */
export function adapterFolder(path: string): string {
  const dir = resolveModel(path);
  if (existsSync(join(dir, 'adapter_config.json'))) return dir;
  if (existsSync(join(dir, 'adapter')))
    throw new AdapterError(
      `${dir}: this is a run folder; expected its adapter: --adapter ${join(path, 'adapter')}`,
    );
  const model = [dir, join(dir, 'model')].find((folder) => existsSync(join(folder, 'config.json')));
  if (model !== undefined)
    throw new AdapterError(`${dir}: expected an adapter, found a whole model; pass it as --model ${model}`);
  return dir;
}

/**
 * Settings with the LoRA settings of the adapter that they name, and the preset that trains all of its tensors.
 * @throws ConfigError for LoRA settings that are given and differ; AdapterError
 */
export async function withAdapter(raw: Raw, where: string): Promise<Raw> {
  if (typeof raw.adapter !== 'string') return raw;
  const adapter = await loadAdapter(adapterFolder(raw.adapter));
  const own = loraOf(adapter.config);
  const given = (raw.lora ?? {}) as Raw;
  const keys = LORA_KEYS.filter((key) => given[key] !== undefined && given[key] !== null);
  const problems = differences(given, own, keys);
  if (problems.length > 0) throw new ConfigError(where, problems);
  const names = [...adapter.tensors.keys()];
  const whole = names.some((name) => /^(?:qformer|query_tokens|language_projection)\b/.test(name));
  return {
    preset: whole ? 'lora+qformer' : 'lora',
    ...raw,
    lora: { ...own, ...pick(given, 'init_lora_weights') },
  };
}

/** How given LoRA settings differ from the adapter's. */
function differences(given: Raw, own: Raw, keys: string[]): string[] {
  return keys.flatMap((key) => {
    const [is, was] = [given[key] ?? emptyOf(key), own[key] ?? emptyOf(key)];
    const show = (value: unknown) => JSON.stringify(value) ?? 'nothing';
    const advice = 'leave it out, or start a new adapter without --adapter';
    return isDeepStrictEqual(is, was)
      ? []
      : [`lora.${key}: the adapter has ${show(was)}, found ${show(is)}; ${advice}`];
  });
}

const pick = (record: Raw, key: string): Raw => (record[key] === undefined ? {} : { [key]: record[key] });
/** The value of a LoRA setting that an adapter does not use. */
const emptyOf = (key: string) => (/^use_|^lora_bias/.test(key) ? false : key === 'bias' ? 'none' : undefined);

/** The settings of an adapter that differ from "not used". */
function loraOf(config: LoraConfig): Raw {
  const values = LORA_KEYS.map((key) => [key, config[key as keyof LoraConfig]] as const);
  const used = values.filter(
    ([key, value]) => value !== null && value !== emptyOf(key) && !isDeepStrictEqual(value, {}),
  );
  return Object.fromEntries(used);
}

/** The adapter of a run's settings. @throws ConfigError for other LoRA settings, which `withAdapter` takes from the adapter; AdapterError if its base is known to be another one */
export async function openStart(
  config: FitConfig,
  say: (text: string) => void,
): Promise<Adapter | undefined> {
  if (config.adapter === undefined) return undefined;
  const dir = adapterFolder(config.adapter);
  const adapter = await loadAdapter(dir);
  const problems = differences({ ...config.lora }, loraOf(adapter.config), LORA_KEYS);
  if (problems.length > 0) throw new ConfigError(`adapter ${config.adapter}`, problems);
  await requireBase(adapter, dir, resolveModel(config.model), say);
  say(`starting from the adapter ${config.adapter}`);
  return adapter;
}

async function requireBase(
  { config: { base_model_name_or_path: name } }: Adapter,
  dir: string,
  model: string,
  say: (text: string) => void,
): Promise<void> {
  const base = name ? baseFolder(name, dir) : undefined;
  if (base === undefined)
    return say(
      `the adapter's base (${name ?? 'not named'}) is not here, so only the shapes are compared with the model's`,
    );
  if (realpathSync(base) === realpathSync(model)) return;
  const [was, is] = [await baseFingerprint(base), await baseFingerprint(model)];
  const other = Object.keys({ ...was, ...is }).filter((file) => was[file] !== is[file]);
  if (other.some((file) => file === 'config.json' || file.endsWith('.safetensors')))
    throw new AdapterError(
      `${dir}: the adapter was made for the base model ${base}, which is not ${model}: ${other.join(', ')} differ; pass --model ${base}`,
    );
}

/** The folder of a base that an adapter in `dir` names, if it is here: see `nearest`. */
export function baseFolder(name: string, dir: string): string | undefined {
  const local = nearest(join(name, 'config.json'), dir);
  if (local !== undefined) return dirname(local);
  try {
    const cached = resolveModel(name);
    return existsSync(join(cached, 'config.json')) ? cached : undefined;
  } catch {
    return undefined;
  }
}

/** A path that exists from the working folder, or else from `dir` or a folder above it; undefined if there is none. */
function nearest(path: string, dir: string): string | undefined {
  if (existsSync(path)) return path;
  if (isAbsolute(path)) return undefined;
  for (let folder = resolve(dir); ; folder = dirname(folder)) {
    if (existsSync(join(folder, path))) return join(folder, path);
    if (dirname(folder) === folder) return undefined;
  }
}

/**
 * Attaches the adapter to the base, and returns the function that gives the Variables of the prepared tree its values. That must be
 * called when the base's tensors that are Variables now have been disposed of.
 * @throws AdapterError if the adapter does not fit the model, or has tensors that the run does not train
 */
export function initialValues(
  base: object,
  adapter: Adapter,
  ties: readonly Tie[],
): (trainables: ReadonlyMap<string, Variable>) => void {
  const own = new Set<Tensor>(flatten(base).values());
  const attached = applyAdapter(base, adapter, { ties });
  const values = new Map([...flatten(attached)].filter(([, leaf]) => !own.has(leaf)));
  return (trainables) => {
    try {
      requireSameTensors(adapter, [...values.keys()], trainables);
      for (const [name, value] of values) trainables.get(name)?.assign(value);
    } finally {
      for (const value of values.values()) dispose(value);
    }
  };
}

function requireSameTensors(
  adapter: Adapter,
  names: string[],
  trainables: ReadonlyMap<string, Variable>,
): void {
  // the stored weight of an adapted head is the base's
  const stored = new Set([...adapter.lora.keys()].map((module) => `${module}.weight`));
  const lost = names.filter((name) => !trainables.has(name) && !stored.has(name));
  const fresh = [...trainables.keys()].filter((name) => /\.lora_[AB]\./.test(name) && !names.includes(name));
  const show = (all: string[]) =>
    `${all.slice(0, 3).join(', ')}${all.length > 3 ? `, … (${all.length})` : ''}`;
  if (lost.length > 0)
    throw new AdapterError(
      `${adapter.where}: has ${show(lost)}, which this run does not train and its result would not have; choose ` +
        '--preset lora+qformer, or merge the adapter (blip2 merge) and train on the merged model',
    );
  if (fresh.length > 0)
    throw new AdapterError(`${adapter.where}: expected ${show(fresh)}, which the settings train, found none`);
}

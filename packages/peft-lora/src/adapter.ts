/** Adapters in memory, read from tensors and a configuration in PEFT's layout (peft 0.21 `save_and_load.py`). */
import type { WeightReader } from '@blip2/weights';
import type { LoraConfig } from './config';
import { AdapterError, list } from './errors';
import { liesIn } from './trained';

export const CONFIG = 'adapter_config.json';
export const WEIGHTS = 'adapter_model.safetensors';
export const EXTRA = 'extra_trainables.safetensors';
export const PREFIX = 'base_model.model.';

/** A tensor on the host. */
export interface HostTensor {
  shape: number[];
  data: Float32Array;
}

/** One module's adapter: A [r, in], B [out, r], lora_B's bias [out] (`lora_bias`), DoRA's magnitudes [out] (`use_dora`). */
export interface LoraMatrices {
  A: HostTensor;
  B: HostTensor;
  bias?: HostTensor;
  magnitude?: HostTensor;
}

/** An adapter that is not attached to a tree. */
export interface Adapter {
  /** Its folder, for messages. */
  where: string;
  config: LoraConfig;
  /** By module name. */
  lora: Map<string, LoraMatrices>;
  /** Base tensors that were trained whole, by full name. */
  tensors: Map<string, HostTensor>;
}

/** The tensors of a file: safetensors, or PyTorch's. */
export type AdapterWeights = Pick<WeightReader, 'path' | 'readFloat32'> & {
  readonly entries: ReadonlyMap<string, { shape: number[] }>;
};

/** The contents of an adapter's files. */
export interface AdapterSource {
  /** The folder, for messages. */
  where?: string;
  /** `adapter_config.json`, parsed by `parseLoraConfig`. */
  config: LoraConfig;
  /** Reader of `adapter_model.safetensors`. */
  weights: AdapterWeights;
  /** Reader of `extra_trainables.safetensors`, which adapters of version 0.1 may have. */
  extra?: AdapterWeights;
}

/**
 * Reads an adapter of this package or of PEFT; tensors become float32. The readers stay open.
 * @throws AdapterError for a missing tensor or an unknown name, WeightsError for a tensor that cannot be read
 */
export async function readAdapter({
  where = 'adapter',
  config,
  weights,
  extra,
}: AdapterSource): Promise<Adapter> {
  const stored = await hostTensors(weights);
  const tensors = extra ? await hostTensors(extra) : new Map<string, HostTensor>();
  const found = new Map<string, Partial<LoraMatrices>>();
  const problems: string[] = [];
  if (hasExtra(config) && !extra) problems.push(`missing ${EXTRA}`);
  for (const [key, value] of stored) {
    const place = placeOf(plainName(key), config);
    if (place === undefined) problems.push(`unexpected "${key}" [${value.shape.join(', ')}]`);
    else if (place.part) found.set(place.module, { ...found.get(place.module), [place.part]: value });
    else if (place.tensor) tensors.set(place.tensor, value);
  }
  problems.push(...incomplete(found, tensors, config));
  if (problems.length > 0)
    throw new AdapterError(`${weights.path} does not fit its ${CONFIG}:\n${list(problems)}`, problems);
  return { where, config, lora: found as Adapter['lora'], tensors };
}

/** Whether the configuration requires the file of tensors outside PEFT's layout. */
export const hasExtra = ({ other }: LoraConfig) => other['extra_trainables'] !== undefined;

/**
 * A stored name without PEFT's prefix, a wrapper of a training program or LAVIS, and the adapter's name, which a state dict that was
 * not saved by PEFT still has (`lora_A.default.weight`).
 */
function plainName(key: string): string {
  const name = key.replace(
    /^(?:module|_orig_mod|_forward_module|(?:opt|t5|language)_model(?=\.base_model))\./,
    '',
  );
  return (name.startsWith(PREFIX) ? name.slice(PREFIX.length) : name).replace(
    /\.(lora_[AB])\.(?!weight$|bias$)[^.]+\.(weight|bias)$/,
    '.$1.$2',
  );
}

async function hostTensors(reader: AdapterWeights): Promise<Map<string, HostTensor>> {
  const tensors = new Map<string, HostTensor>();
  for (const [name, { shape }] of reader.entries)
    tensors.set(name, { shape, data: await reader.readFloat32(name) });
  return tensors;
}

const PARTS = {
  '.lora_A.weight': 'A',
  '.lora_B.weight': 'B',
  '.lora_B.bias': 'bias',
  '.lora_magnitude_vector': 'magnitude',
} as const;

type Place = { module: string; part: keyof LoraMatrices } | { part?: undefined; tensor?: string };

/** Whether an adapter with this configuration has such a part. */
const hasPart = (part: keyof LoraMatrices, config: LoraConfig) =>
  part === 'bias' ? config.lora_bias : part !== 'magnitude' || config.use_dora;

/** The place in an adapter of a stored name without its prefix; undefined if the configuration has none for it. */
function placeOf(name: string, config: LoraConfig): Place | undefined {
  for (const [end, part] of Object.entries(PARTS))
    if (hasPart(part, config) && name.endsWith(end)) return { module: name.slice(0, -end.length), part };
  // With bias "all", PEFT stores a whole module's biases again under its wrapper's names; they are equal or unused.
  if (config.bias === 'all' && /\.(modules_to_save|original_module)\.bias$/.test(name)) return {};
  if (/\.lora_[^.]+(\.|$)/.test(name)) return undefined;
  // PEFT loads every other tensor into the model, such as embed_tokens of save_embedding_layers.
  return { tensor: name.replace(/\.base_layer\.(weight|bias)$/, '.$1') };
}

/** Names of tensors that the configuration requires and the file lacks. */
function incomplete(
  found: ReadonlyMap<string, Partial<LoraMatrices>>,
  tensors: ReadonlyMap<string, HostTensor>,
  config: LoraConfig,
): string[] {
  const problems: string[] = [];
  for (const [module, matrices] of found) {
    for (const [end, part] of Object.entries(PARTS))
      if (hasPart(part, config) && !matrices[part]) problems.push(`missing "${PREFIX}${module}${end}"`);
  }
  for (const module of config.modules_to_save ?? []) {
    if (![...tensors.keys()].some((name) => liesIn(name, module)))
      problems.push(`missing all tensors of modules_to_save "${module}"`);
  }
  return problems;
}

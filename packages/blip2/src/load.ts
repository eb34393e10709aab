/** Building a model from a configuration and a reader of weights; folders are read in folder.ts. */
import { dispose, nest, quantised, storedTensor, tensor } from '@blip2/nn';
import type { StoredWeight, Tensor, Tensor2D } from '@blip2/nn';
import { checkTable } from '@blip2/weights';
import type { TensorEntry, WeightReader, WeightTable } from '@blip2/weights';
import { parseConfig } from './config';
import type { Blip2Config } from './config';
import { storedWeight } from './stored-weight';
import { blip2Weights } from './model';
import type { Blip2, Blip2Params } from './model';
import { OUTPUT_LAYER, outputLayerName, roundedOutputLayer } from './output-layer';
import { tiesOf, withStoredTies } from './ties';

/** A checkpoint; `readSafetensors` of @blip2/weights returns a reader of bytes in memory. */
export interface ModelSource {
  /** The parsed `config.json`. */
  config: unknown;
  /** `loadModel` does not close it. */
  weights: WeightReader;
}

export interface LoadOptions {
  /** Called after each tensor with the parameters loaded so far and in all. */
  onProgress?: (progress: { loaded: number; total: number; name: string }) => void;
  /**
   * Elements from which a matrix keeps its encoding, if the backend supports that (`storedTensor` of @blip2/nn); by default
   * the backend decides, Infinity converts everything to float32.
   */
  store_from?: number;
  /**
   * Rounds the linear layers of the vision tower's, Q-Former's and text model's layers to 8 bits, the last also to 4, for the precisions
   * int8 and int4. @throws Error if the active backend does not have them
   */
  int8?: Int8Options;
}

export interface Int8Options {
  /** Whether a tensor keeps its exact values, because it trains; by default, none does. */
  keep?: (name: string) => boolean;
  /** By default, all factors are 1 and every weight is rounded. */
  smoothing?: Smoothing;
  /** Bits of the text model's weights, for the precision int4; by default 8. */
  text_bits?: 8 | 4;
}

/** Bits of a rounded weight. */
export const bitsOf = (name: string, text_bits: 8 | 4 = 8): 8 | 4 =>
  name.startsWith('language_model.') ? text_bits : 8;

/** How weights are rounded to int8: see smoothing.ts. */
export interface Smoothing {
  /** Factors of the columns of a weight, by its name. */
  readonly factors: ReadonlyMap<string, Float32Array>;
  /** Weights that keep their exact values, because rounding would change their outputs too much. */
  readonly exact: readonly string[];
  /** Weights that are exact in a run because they trained. They are not part of the digest. */
  readonly trained?: readonly string[];
}

/** Weights that are rounded already, by name. */
export type Int8Weights = ReadonlyMap<string, StoredWeight>;

/**
 * A model, all frozen: large matrices keep their encoding if the backend supports that, and stay in their files if the reader
 * has files, which must not change while the model lives; everything else becomes float32 tensors.
 * Of two tied tensors a checkpoint may store either or both; both with different values make the model untied.
 * @throws ModelError for the config, and one WeightsError that names every missing, unexpected and misshapen tensor
 */
export async function loadModel({ config, weights }: ModelSource, o: LoadOptions = {}): Promise<Blip2> {
  return loadWeights(parseConfig(config), weights, o);
}

/** `loadModel` for a config that is already parsed. */
export async function loadWeights(
  declared: Blip2Config,
  reader: WeightReader,
  o: LoadOptions,
  madeFor: (config: Blip2Config) => Promise<Int8Weights> = async () => new Map(),
  store = storedTensor,
): Promise<Blip2> {
  const config = await withStoredTies(declared, reader);
  const made = await madeFor(config);
  const aliases: Record<string, string[]> = {};
  for (const { tensor, alias } of tiesOf(config)) (aliases[tensor] ??= []).push(alias);
  const head = outputLayerName(config);
  let output: StoredWeight | undefined; // in its encoding
  const choose = (name: string, weight: StoredWeight) => {
    const matrix = store(chosen(name, weight, o, made), o.store_from);
    if (name === head && matrix && o.int8 && !o.int8.keep?.(name)) output = weight;
    return matrix;
  };
  const flat = await loadTable(blip2Weights(config), reader, { ...o, aliases, store: choose });
  const params = nest(flat) as Blip2Params;
  if (!output) return { config, params };
  try {
    const rounded = store(made.get(OUTPUT_LAYER) ?? (await roundedOutputLayer(output)), o.store_from)!;
    return { config, params, output_layer: { exact: flat.get(head) as Tensor2D, rounded } };
  } catch (error) {
    dispose(params);
    throw error;
  }
}

export interface TableOptions extends Pick<LoadOptions, 'onProgress' | 'store_from'> {
  /** Other names of a tensor in the checkpoint. */
  aliases?: Record<string, string[]>;
  /** Keeps a matrix in an encoding; undefined for one that becomes float32. */
  store?: (name: string, weight: StoredWeight) => Tensor | undefined;
}

/**
 * The tensors of a table of weights, as `loadModel` keeps them.
 * @throws WeightsError that names every missing, unexpected and misshapen tensor
 */
export async function loadTable(
  table: WeightTable,
  reader: WeightReader,
  { store_from, store = (_, weight) => storedTensor(weight, store_from), ...o }: TableOptions,
): Promise<Map<string, Tensor>> {
  const total = table.reduce((sum, [, shape]) => sum + elements(shape), 0);
  const stored = checkTable(reader, table, { aliases: o.aliases, ignore: UNUSED });
  const flat = new Map<string, Tensor>();
  try {
    let loaded = 0;
    for (const [name, shape] of table) {
      const entry = stored.get(name)!;
      const weight = await storedWeight(entry, reader);
      const matrix = weight && store(name, weight);
      flat.set(name, matrix ?? tensor(await reader.readFloat32(entry.name), shape));
      loaded += elements(shape);
      o.onProgress?.({ loaded, total, name });
    }
  } catch (error) {
    for (const t of flat.values()) t.dispose();
    throw error;
  }
  return flat;
}

/** Tensors of older checkpoints that no model of transformers reads. */
const UNUSED = [/\.position_ids$/, /\.EncDecAttention\.relative_attention_bias\.weight$/];

/** The matrices of linear layers inside a numbered layer. */
const ROUNDED = /\.(?:layers?|block)\.\d+\.(?!.*relative_attention_bias).*\.weight$/;

/** Whether a weight of the checkpoint is rounded for the precision int8. INT4 is multiplied in 8 bits as it is. */
export const isRounded = (
  name: string,
  { shape, quantised: q }: Pick<TensorEntry, 'shape' | 'quantised'>,
): boolean => shape.length === 2 && q?.kind !== 'INT4' && ROUNDED.test(name);

function chosen(name: string, weight: StoredWeight, { int8 }: LoadOptions, made: Int8Weights): StoredWeight {
  if (!int8 || int8.keep?.(name) || !isRounded(name, { shape: [...weight.shape] })) return weight;
  if (weight.encoding.kind === 'INT4') return weight;
  if (int8.smoothing?.exact.includes(name)) return weight;
  const factors = int8.smoothing?.factors.get(name);
  return made.get(name) ?? roundedWeight(weight, factors, bitsOf(name, int8.text_bits));
}

/** @throws Error if the active backend has no int8 weights */
export function roundedWeight(weight: StoredWeight, factors?: Float32Array, bits: 8 | 4 = 8): StoredWeight {
  const rounded = quantised(weight, factors, bits);
  if (!rounded) throw new Error('loadModel: int8 weights need the backend native or webgpu');
  return rounded;
}

const elements = (shape: number[]) => shape.reduce((a, b) => a * b, 1);

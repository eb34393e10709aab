/** Building a model from a configuration and a reader of weights; folders are read in folder.ts. */
import { nest, storedTensor, tensor } from '@blip2/nn';
import type { Tensor } from '@blip2/nn';
import { checkTable } from '@blip2/weights';
import type { WeightReader } from '@blip2/weights';
import { parseConfig } from './config';
import type { Blip2Config } from './config';
import { storedWeight } from './stored-weight';
import { blip2Weights } from './model';
import type { Blip2, Blip2Params } from './model';
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
}

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
): Promise<Blip2> {
  const config = await withStoredTies(declared, reader);
  const table = blip2Weights(config);
  const total = table.reduce((sum, [, shape]) => sum + elements(shape), 0);
  const aliases: Record<string, string[]> = {};
  for (const { tensor, alias } of tiesOf(config)) (aliases[tensor] ??= []).push(alias);
  const stored = checkTable(reader, table, { aliases, ignore: [/\.position_ids$/] });
  const flat = new Map<string, Tensor>();
  try {
    let loaded = 0;
    for (const [name, shape] of table) {
      const entry = stored.get(name)!;
      const weight = storedWeight(entry, reader);
      const matrix = weight && storedTensor(weight, o.store_from);
      flat.set(name, matrix ?? tensor(await reader.readFloat32(entry.name), shape));
      loaded += elements(shape);
      o.onProgress?.({ loaded, total, name });
    }
  } catch (error) {
    for (const t of flat.values()) t.dispose();
    throw error;
  }
  return { config, params: nest(flat) as Blip2Params };
}

const elements = (shape: number[]) => shape.reduce((a, b) => a * b, 1);

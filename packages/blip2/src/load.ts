/** Loading a checkpoint folder in Hugging Face's layout. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { nest, storedTensor, tensor, type Tensor } from '@blip2/nn';
import { checkTable } from '@blip2/weights';
import { openWeights } from '@blip2/weights/node';
import { ModelError, parseConfig, type Blip2Config } from './config';
import { storedWeight } from './stored-weight';
import { blip2Weights, type Blip2, type Blip2Params } from './model';
import { tiesOf, withStoredTies } from './ties';

export interface LoadOptions {
  /** Called after each tensor with the parameters loaded so far and in all. */
  onProgress?: (progress: { loaded: number; total: number; name: string }) => void;
  /**
   * Elements from which a matrix stays in its file, where the backend can (`storedTensor` of @blip2/nn); by default the
   * backend decides, Infinity reads everything.
   */
  store_from?: number;
}

/** Reads `config.json` of a checkpoint folder. Throws `ModelError`. */
export async function loadConfig(dir: string): Promise<Blip2Config> {
  const file = join(dir, 'config.json');
  let json: unknown;
  try {
    json = JSON.parse(await readFile(file, 'utf8'));
  } catch (error) {
    throw new ModelError(`${file}: expected a model's config.json: ${(error as Error).message}`, {
      cause: error,
    });
  }
  return parseConfig(json, file);
}

/**
 * Loads `config.json` and `model.safetensors` (or its shards), all frozen: large matrices stay in their files where the
 * backend can, so these must not change while the model lives; everything else becomes float32 tensors.
 * Of two tied tensors a file may store either or both; both with different values make the model untied. Throws
 * `ModelError` for the config, and one `WeightsError` that names every missing, unexpected and misshapen tensor.
 */
export async function loadModel(dir: string, o: LoadOptions = {}): Promise<Blip2> {
  const declared = await loadConfig(dir);
  const reader = await openWeights(dir);
  const flat = new Map<string, Tensor>();
  let config = declared;
  try {
    config = await withStoredTies(declared, reader);
    const table = blip2Weights(config);
    const total = table.reduce((sum, [, shape]) => sum + elements(shape), 0);
    const aliases: Record<string, string[]> = {};
    for (const { tensor, alias } of tiesOf(config)) (aliases[tensor] ??= []).push(alias);
    const stored = checkTable(reader, table, { aliases, ignore: [/\.position_ids$/] });
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
  } finally {
    await reader.close();
  }
  return { config, params: nest(flat) as Blip2Params };
}

const elements = (shape: number[]) => shape.reduce((a, b) => a * b, 1);

/** Loading a checkpoint folder in Hugging Face's layout. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { nest, storedTensor, tensor, type Tensor } from '@blip2/nn';
import { checkTable, openWeights, sameValues, type WeightReader } from '@blip2/weights';
import { ModelError, parseConfig, type Blip2Config } from './config';
import { blip2Weights, type Blip2, type Blip2Params } from './model';

const EMBED_TOKENS = 'language_model.model.decoder.embed_tokens.weight';
const LM_HEAD = 'language_model.lm_head.weight';

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
 * A tied text model may store `embed_tokens`, `lm_head` or both, if they are equal. Throws `ModelError` for the config and
 * tied weights that differ, and one `WeightsError` that names every missing, unexpected and misshapen tensor.
 */
export async function loadModel(dir: string, o: LoadOptions = {}): Promise<Blip2> {
  const config = await loadConfig(dir);
  const table = blip2Weights(config);
  const total = table.reduce((sum, [, shape]) => sum + elements(shape), 0);
  const reader = await openWeights(dir);
  const flat = new Map<string, Tensor>();
  try {
    const aliases: Record<string, string[]> = config.text_config.tie_word_embeddings
      ? { [EMBED_TOKENS]: [LM_HEAD] }
      : {};
    const stored = checkTable(reader, table, { aliases, ignore: [/\.position_ids$/] });
    for (const [name, others] of Object.entries(aliases)) await refuseUntied(reader, [name, ...others]);
    let loaded = 0;
    for (const [name, shape] of table) {
      const entry = stored.get(name)!;
      const matrix = storedTensor(entry, o.store_from);
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

/** Tied weights that a file holds several times must be the same, or one of them would be ignored silently. */
async function refuseUntied(reader: WeightReader, names: string[]): Promise<void> {
  const [first, ...others] = names.filter((name) => reader.entries.has(name));
  for (const other of others)
    if (!(await sameValues(reader, first, other)))
      throw new ModelError(
        `${reader.path}: ${first} and ${other} differ, but the config ties them (text_config.tie_word_embeddings); ` +
          'expected equal values: untie them in config.json, or store only the right one',
      );
}

const elements = (shape: number[]) => shape.reduce((a, b) => a * b, 1);

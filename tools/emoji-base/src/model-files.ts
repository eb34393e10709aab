// The text files of models/blip2-emoji-mini, in Hugging Face's format: configuration, tokenizer, image processor. The folder in the
// repository defines the architecture; a new base gets copies of the files, with its own vocabulary in tokenizer.json.
// The configuration has no dropout, and an initializer_range of 0.02: transformers' default for the vision part, 1e-10, does not train.
import { readFileSync } from 'node:fs';
import { cp, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Bpe } from './bpe';

const FOLDER = fileURLToPath(new URL('../../../models/blip2-emoji-mini', import.meta.url));
const read = <T>(name: string) => JSON.parse(readFileSync(join(FOLDER, name), 'utf8')) as T;

/** config.json of the base: about 6.1 million parameters. */
export const BASE_CONFIG = read<{
  num_query_tokens: number;
  vision_config: { image_size: number };
  text_config: { vocab_size: number };
}>('config.json');
export const NUM_QUERIES = BASE_CONFIG.num_query_tokens;
export const IMAGE_SIZE = BASE_CONFIG.vision_config.image_size;
export const VOCAB_SIZE = BASE_CONFIG.text_config.vocab_size;

/** Ids 0 … 4. OPT begins and ends a text with `</s>`. */
export const SPECIALS = ['<s>', '<pad>', '</s>', '<unk>', '<image>'] as const;

/** CLIP's mean and standard deviation per channel, which BLIP-2's checkpoints use. */
export const { image_mean: PIXEL_MEAN, image_std: PIXEL_STD } = read<{
  image_mean: readonly number[];
  image_std: readonly number[];
}>('preprocessor_config.json');

/** Writes the files of the model folder, except the weights and the card. */
export async function writeModelFiles(folder: string, bpe: Bpe): Promise<void> {
  await cp(FOLDER, folder, { recursive: true, filter: (path) => !/\.(safetensors|md)$/.test(path) });
  const tokenizer = read<{ model: object }>('tokenizer.json');
  const model = { ...tokenizer.model, vocab: Object.fromEntries(bpe.vocab), merges: bpe.merges };
  await writeFile(join(folder, 'tokenizer.json'), JSON.stringify({ ...tokenizer, model }, null, 2) + '\n');
}

/** The processor of a checkpoint folder. */
import { existsSync, statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import type { DecodeOptions } from './decode-image';
import { DataError } from './errors';
import { imagePixels } from './image-pixels';
import type { ImageConfig } from './pixels';
import { parseImageConfig } from './pixels';
import type { Processor, TextIds } from './processor';
import { makeProcessor } from './processor';
import { qformerText } from './qformer-text';
import type { QFormerText } from './qformer-text';
import { loadTokenizer, readJson } from './tokenizer-files';

/**
 * Loads the processor of a checkpoint folder from preprocessor_config.json (or the image_processor of
 * processor_config.json) and tokenizer files; for InstructBLIP also the tokenizer of the folder `qformer_tokenizer`.
 * @throws DataError that names the missing or wrong file
 */
export async function loadProcessor(
  modelDir: string,
  ids: TextIds,
  decoding: DecodeOptions = {},
): Promise<Processor> {
  if (!(existsSync(modelDir) && statSync(modelDir).isDirectory()))
    throw new DataError(`${modelDir}: there is no such folder; expected a model folder with config.json`);
  const image = await loadImageConfig(modelDir, decoding);
  const tokenizer = await loadTokenizer(modelDir, ids.imageToken);
  const qformer = await loadQFormerText(modelDir, ids);
  return makeProcessor(ids, {
    image,
    tokenizer,
    ...(qformer && { qformer }),
    concurrency: Math.max(8, availableParallelism()), // they often wait for the main thread
    pixels: (source, view) => imagePixels(source, image, view),
  });
}

async function loadQFormerText(
  dir: string,
  { instruction_length }: TextIds,
): Promise<QFormerText | undefined> {
  if (instruction_length === undefined) return undefined;
  const own = join(dir, QFORMER_TOKENIZER);
  return qformerText(await loadTokenizer(own), instruction_length, own);
}

/** The folder that transformers' `InstructBlipProcessor` writes. */
const QFORMER_TOKENIZER = 'qformer_tokenizer';

/**
 * The image preprocessing of a checkpoint folder, for `imagePixels`: preprocessor_config.json, or image_processor of
 * processor_config.json. @throws DataError
 */
export async function loadImageConfig(dir: string, decoding: DecodeOptions = {}): Promise<ImageConfig> {
  const file = join(dir, 'preprocessor_config.json');
  const own = await readJson(file, true);
  if (own) return parseImageConfig(own, file, decoding);
  const outer = join(dir, 'processor_config.json');
  const nested = (await readJson(outer, true))?.image_processor;
  if (typeof nested === 'object' && nested !== null) {
    return parseImageConfig(nested as Record<string, unknown>, outer, decoding);
  }
  throw new DataError(
    `${file}: there is no such file, nor an image_processor in processor_config.json; copy it from the checkpoint's repository`,
  );
}

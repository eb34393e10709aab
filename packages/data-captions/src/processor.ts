/**
 * The image preprocessing, tokenizer and special ids of one checkpoint. Reference: HF `Blip2Processor`.
 */
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { View } from './augment';
import type { DecodeOptions } from './decode-image';
import { DataError } from './errors';
import type { ImageConfig } from './pixels';
import { imagePixels, parseImageConfig } from './pixels';
import { qformerText } from './qformer-text';
import type { QFormerText } from './qformer-text';
import type { Tokenizer } from './tokenizer';
import { loadTokenizer, readJson } from './tokenizer';

/** The layout of token rows for a checkpoint's text model; `textIds(config)` of @blip2/blip2 returns it. */
export interface TextIds {
  /**
   * `causal`: prompt and target share a row. `seq2seq`: the prompt is a row that ends with `eos`, and the target is a row of
   * its own.
   */
  rows: 'causal' | 'seq2seq';
  /** The template of questions, {} for the question; by default VQA_PROMPT. */
  vqa_prompt?: string;
  /** Put in front of every text; undefined if the text model has no start token. */
  bos?: number;
  /** Ends every target and stops generation. */
  eos: number;
  pad: number;
  /** Placeholder that the model replaces with query outputs; undefined in old checkpoints. */
  imageToken: number | undefined;
  /** Number of placeholders per row. */
  numQueryTokens: number;
  /** Most tokens of an instruction, if the Q-Former reads the prompts (InstructBLIP). */
  instruction_length?: number;
}

export interface Processor extends TextIds {
  tokenizer: Pick<Tokenizer, 'encode' | 'decode' | 'special'>;
  /** How a Q-Former that reads the prompts gets them. */
  qformer?: QFormerText;
  /** Size to which every image is stretched. */
  imageSize: { height: number; width: number };
  /** Normalised [3, height, width] of an image (a name, or the bytes of a file), or of a view of it. @throws DataError */
  pixels(image: string | Uint8Array, view?: View): Promise<Float32Array>;
  /** Text of generated ids, without special tokens and surrounding white space. */
  decode(ids: readonly number[]): string;
}

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
  return {
    ...ids,
    ...(qformer && { qformer }),
    imageToken: ids.imageToken ?? tokenizer.tokenId('<image>'),
    tokenizer,
    imageSize: { height: image.height, width: image.width },
    pixels: (source, view) => imagePixels(source, image, view),
    decode: (output) => tokenizer.decode(output, true).trim(),
  };
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

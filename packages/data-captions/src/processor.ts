/**
 * What stands between files and tensors: image preprocessing, tokenizer and special ids of one checkpoint.
 * Reference: HF `Blip2Processor`.
 */
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { View } from './augment';
import type { Alpha } from './decode-image';
import { DataError, show } from './errors';
import type { ImageConfig } from './pixels';
import { imagePixels, parseImageConfig } from './pixels';
import type { Tokenizer } from './tokenizer';
import { loadTokenizer, readJson } from './tokenizer';

export interface Processor {
  tokenizer: Pick<Tokenizer, 'encode' | 'decode'>;
  /** The size to which every image is stretched. */
  imageSize: { height: number; width: number };
  /** Put in front of every text (OPT: 2); undefined when config.json says null. */
  bos?: number;
  /** Ends every target and stops generation: text_config.eos_token_id. */
  eos: number;
  pad: number;
  /** The placeholder that the model replaces by query outputs; undefined in checkpoints from before it existed. */
  imageToken: number | undefined;
  /** Placeholders per row. */
  numQueryTokens: number;
  /** An image (a path, or the bytes of a file), or a view of it, as normalised float32 [3, height, width]. Throws DataError. */
  pixels(image: string | Uint8Array, view?: View): Promise<Float32Array>;
  /** Generated ids to text: special tokens dropped, white space around it removed. */
  decode(ids: readonly number[]): string;
}

export interface ProcessorOptions {
  /**
   * Transparent images: `white` (default) blends onto white, as transformers 5.23 does; `drop` keeps the colours under
   * the transparency, as PIL's convert("RGB") and transformers up to 5.17 do.
   */
  alpha?: Alpha;
}

/**
 * Loads the processor of a checkpoint folder from config.json, preprocessor_config.json (or the image_processor of
 * processor_config.json) and tokenizer files. Throws DataError naming the file that is missing or wrong.
 */
export async function loadProcessor(modelDir: string, options: ProcessorOptions = {}): Promise<Processor> {
  if (!(existsSync(modelDir) && statSync(modelDir).isDirectory())) {
    throw new DataError(`${modelDir}: there is no such folder; expected a model folder with config.json`);
  }
  const file = join(modelDir, 'config.json');
  const config = (await readJson(file))!;
  const ids = textIds(config, file);
  const image = await loadImageConfig(modelDir, options.alpha ?? 'white');
  const tokenizer = await loadTokenizer(modelDir, ids.imageToken);
  return {
    ...ids,
    imageToken: ids.imageToken ?? tokenizer.tokenId('<image>'),
    tokenizer,
    imageSize: { height: image.height, width: image.width },
    pixels: (source, view) => imagePixels(source, image, view),
    decode: (output) => tokenizer.decode(output, true).trim(),
  };
}

type Ids = Pick<Processor, 'bos' | 'eos' | 'pad' | 'imageToken' | 'numQueryTokens'>;

/** Positions of language models end long before. */
const MOST_QUERIES = 4096;

/** The ids of config.json; what it leaves out has the defaults of HF's OPTConfig and Blip2Config. */
function textIds(config: Record<string, unknown>, file: string): Ids {
  const text = (config.text_config ?? {}) as Record<string, unknown>;
  if (text.model_type !== undefined && text.model_type !== 'opt') {
    throw new DataError(
      `${file}: text_config.model_type: expected "opt", found ${show(text.model_type)}; only OPT language models are supported`,
    );
  }
  const id = (where: string, value: unknown, most = 0x7fffffff): number => {
    if (Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= most)
      return value as number;
    throw new DataError(
      `${file}: ${where}: expected a non-negative integer up to ${most}, found ${show(value)}`,
    );
  };
  const orDefault = (value: unknown, byDefault: number) => (value === undefined ? byDefault : value);
  const first = (value: unknown) => (Array.isArray(value) ? value[0] : value);
  const imageToken = config.image_token_index ?? config.image_token_id ?? undefined;
  return {
    bos:
      text.bos_token_id === null
        ? undefined
        : id('text_config.bos_token_id', orDefault(text.bos_token_id, 2)),
    eos: id('text_config.eos_token_id', first(orDefault(text.eos_token_id, 2))),
    pad: id('text_config.pad_token_id', orDefault(text.pad_token_id, 1)),
    imageToken: imageToken === undefined ? undefined : id('image_token_index', imageToken),
    numQueryTokens: id('num_query_tokens', orDefault(config.num_query_tokens, 32), MOST_QUERIES),
  };
}

async function loadImageConfig(dir: string, alpha: Alpha): Promise<ImageConfig> {
  const file = join(dir, 'preprocessor_config.json');
  const own = await readJson(file, true);
  if (own) return parseImageConfig(own, file, alpha);
  const outer = join(dir, 'processor_config.json');
  const nested = (await readJson(outer, true))?.image_processor;
  if (typeof nested === 'object' && nested !== null) {
    return parseImageConfig(nested as Record<string, unknown>, outer, alpha);
  }
  throw new DataError(
    `${file}: there is no such file, nor an image_processor in processor_config.json; copy it from the checkpoint's repository`,
  );
}

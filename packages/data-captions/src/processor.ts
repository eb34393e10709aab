/**
 * The image preprocessing, tokenizer and special ids of one checkpoint. Reference: HF `Blip2Processor`.
 */
import type { View } from './augment';
import type { ImageConfig } from './pixels';
import type { QFormerText } from './qformer-text';
import type { Tokenizer } from './tokenizer';

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
  /** Images that `batches` decodes at the same time. Default: 8. */
  concurrency?: number;
  /** Normalised [3, height, width] of an image (a name, or the bytes of a file), or of a view of it. @throws DataError */
  pixels(image: string | Uint8Array, view?: View): Promise<Float32Array>;
  /** Text of generated ids, without special tokens and surrounding white space. */
  decode(ids: readonly number[]): string;
}

/** What a processor is made of. */
export interface ProcessorParts extends Pick<Processor, 'pixels' | 'concurrency' | 'qformer'> {
  tokenizer: Tokenizer;
  image: ImageConfig;
}

/** A processor from its parts; `pixels` decodes an image and calls `pixelValues`. */
export function makeProcessor(ids: TextIds, { image, ...parts }: ProcessorParts): Processor {
  const { tokenizer } = parts;
  return {
    ...ids,
    ...parts,
    imageToken: ids.imageToken ?? tokenizer.tokenId('<image>'),
    imageSize: { height: image.height, width: image.width },
    decode: (output) => tokenizer.decode(output, true).trim(),
  };
}

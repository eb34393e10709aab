/**
 * How often the Q-Former runs for a batch, and what it reads: once for each picture, or, if it reads instructions (InstructBLIP), once for
 * each picture and instruction. B rows, P pictures, R readings, W words of an instruction, N image tokens, Dv their width.
 */
import { gatherRows } from '@blip2/nn';
import type { Tensor3D } from '@blip2/nn';
import type { TextRows } from '@blip2/qformer';
import { ModelError } from './config';
import type { Blip2Config } from './config';
import { picturesIn } from './tokens';
import type { TokenBatch } from './tokens';

export interface Readings {
  /** The batch, its `pictures` being readings. */
  tokens: TokenBatch;
  /** R; undefined without pictures. */
  count: number | undefined;
  /** [R], if readings are not the pictures in their order. */
  pictures?: Int32Array;
  /** [R, W] */
  instructions?: TextRows;
}

/** @throws ModelError if the model reads instructions and the batch has none, or the other way round */
export function readingsOf(
  { qformer_config }: Blip2Config,
  tokens: TokenBatch,
  images: number | undefined,
): Readings {
  const { instructions, ...rest } = tokens;
  if (images === undefined) return { tokens: rest, count: undefined };
  if (!qformer_config.use_qformer_text_input) {
    if (!instructions) return { tokens: rest, count: images };
    throw new ModelError('instructions: expected none, because the Q-Former of this model reads no text');
  }
  const of = picturesIn(tokens, images);
  const words = checkInstructions(instructions, tokens);
  const keys = words.map((row, b) => `${of[b]};${row}`);
  const first = [...new Set(keys)].map((key) => keys.indexOf(key));
  const pictures = Int32Array.from(first, (b) => of[b]);
  const isEach = pictures.length === images && pictures.every((p, r) => p === r);
  return {
    tokens: { ...rest, pictures: Int32Array.from(keys, (key) => first.findIndex((b) => keys[b] === key)) },
    count: first.length,
    pictures: isEach ? undefined : pictures,
    instructions: rowsAt(instructions!, first),
  };
}

/** The image tokens of each reading: [P, N, Dv] → [R, N, Dv]. */
export const imagesRead = (image_features: Tensor3D, { pictures }: Readings): Tensor3D =>
  pictures ? gatherRows(image_features, pictures) : image_features;

/** Ids and mask of each row, as a key. */
function checkInstructions(instructions: TextRows | undefined, { shape: [B] }: TokenBatch): string[] {
  if (!instructions)
    throw new ModelError(
      'instructions: expected the tokens of each prompt for the Q-Former (qformer_input_ids in transformers), found none; ' +
        'promptBatch and collate of @blip2/data-captions make them',
    );
  const { shape, input_ids, attention_mask } = instructions;
  const [R, W] = shape;
  if (R === B && input_ids.length === R * W && attention_mask.length === R * W)
    return Array.from({ length: B }, (_, b) =>
      [input_ids, attention_mask].map((values) => values.subarray(b * W, (b + 1) * W).join()).join(';'),
    );
  throw new ModelError(
    `instructions: expected [${B}, W] ids and mask values, found [${shape}], ${input_ids.length} and ${attention_mask.length} values`,
  );
}

function rowsAt({ shape: [, W], ...values }: TextRows, rows: readonly number[]): TextRows {
  const picked = (all: Int32Array) =>
    Int32Array.from(rows.flatMap((b) => [...all.subarray(b * W, (b + 1) * W)]));
  return {
    input_ids: picked(values.input_ids),
    attention_mask: picked(values.attention_mask),
    shape: [rows.length, W],
  };
}

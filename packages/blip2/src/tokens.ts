/** Token batches on the host, and the places of the image's rows in them. Nothing in this file computes on a backend. */
import type { LanguageModel, TextConfig, TokenBatch as Rows } from '@blip2/nn';
import type { TextRows } from '@blip2/qformer';
import { ModelError } from './config';
import type { Blip2Config } from './config';
import { languageModel } from './language-model';

export interface TokenBatch extends Rows {
  /** What a Q-Former that reads instructions gets of each row, [B, W]. transformers: `qformer_input_ids`, `qformer_attention_mask`. */
  instructions?: TextRows;
}

/** The layout of this model's token rows, for `loadProcessor` of @blip2/data-captions. */
export function textIds(cfg: Blip2Config) {
  const { bos_token_id, eos_token_id, pad_token_id }: TextConfig = cfg.text_config;
  const { rows, vqa_prompt } = languageModel(cfg);
  return {
    rows,
    vqa_prompt,
    bos: bos_token_id,
    eos: eos_token_id,
    pad: pad_token_id,
    imageToken: cfg.image_token_index,
    numQueryTokens: cfg.num_query_tokens,
    instruction_length: cfg.qformer_config.words?.max_position_embeddings,
  };
}

/** The prompt of an image without text, `[image]·Q, bos` (`seq2seq`: eos), for `batch` images; transformers uses the same. */
export function imagePrompt(cfg: Blip2Config, batch: number): TokenBatch {
  const { bos_token_id, eos_token_id }: TextConfig = cfg.text_config;
  const end = languageModel(cfg).rows === 'seq2seq' ? eos_token_id : bos_token_id;
  const images = Array<number>(cfg.num_query_tokens).fill(imageTokenOf(cfg));
  const row = end === undefined ? images : [...images, end];
  const input_ids = Int32Array.from({ length: batch * row.length }, (_, i) => row[i % row.length]);
  return { input_ids, attention_mask: new Int32Array(input_ids.length).fill(1), shape: [batch, row.length] };
}

/** Source of each position's embedding: `text` lists the ids to embed, `source` indexes [text rows; image rows]. */
export interface Layout {
  text: Int32Array; // [n]
  source: Int32Array; // [B·T] or [N]: below n a text row, from n on the image rows, Q per picture
}

/**
 * Splits a batch into text and image positions. Each row must have exactly Q image tokens if there are images, and none
 * otherwise (transformers silently accepts fewer).
 * @throws ModelError
 */
export function layout(cfg: Blip2Config, tokens: TokenBatch, images: number | undefined): Layout {
  const { image, Q, pictures } = checkImages(cfg, tokens, images);
  const text = tokens.input_ids.filter((id) => id !== image);
  const [, T] = tokens.shape;
  let [nextText, seen] = [0, 0];
  const source = tokens.input_ids.map((id, i) => {
    if (i % T === 0) seen = 0;
    return id === image ? text.length + pictures[Math.floor(i / T)] * Q + seen++ : nextText++;
  });
  return { text, source };
}

/** The id of image tokens, their number in a row, and the picture of each row. */
export interface ImageRows {
  image: number | undefined;
  Q: number;
  pictures: Int32Array;
}

/** @throws ModelError unless ids, mask, pictures and image tokens fit */
export function checkImages(cfg: Blip2Config, tokens: TokenBatch, images: number | undefined): ImageRows {
  checkBatch(tokens);
  const [B, T] = tokens.shape;
  const pictures = picturesIn(tokens, images);
  const Q = images === undefined ? 0 : cfg.num_query_tokens;
  const image = images === undefined ? cfg.image_token_index : imageTokenOf(cfg);
  const counts = Array.from({ length: B }, (_, b) => {
    const row = tokens.input_ids.subarray(b * T, (b + 1) * T);
    return row.reduce((count, id) => count + (id === image ? 1 : 0), 0);
  });
  const wrong = counts.flatMap((count, b) => (count === Q ? [] : [`row ${b} has ${count}`]));
  if (wrong.length === 0) return { image, Q, pictures };
  const expected = images === undefined ? 'none, because there is no image' : `${Q} (num_query_tokens)`;
  const id = image === undefined ? '' : ` (id ${image})`;
  throw new ModelError(`image tokens${id} per row: expected ${expected}; ${wrong.slice(0, 8).join(', ')}`);
}

/** The picture of each row. @throws ModelError */
export function picturesIn({ pictures, shape: [B] }: TokenBatch, images: number | undefined): Int32Array {
  const own = Int32Array.from({ length: B }, (_, b) => b);
  if (images === undefined) return own;
  if (!pictures) {
    if (images === B) return own;
    throw new ModelError(
      `expected one image for each of the ${B} rows of input_ids, found ${images} images; rows that share one need \`pictures\``,
    );
  }
  const wrong = pictures.find((p) => !(p >= 0 && p < images));
  const unused = Array.from({ length: images }, (_, p) => p).find((p) => !pictures.includes(p));
  const length = pictures.length === B ? undefined : `${pictures.length} values`;
  const found = length ?? wrong ?? (unused === undefined ? undefined : `no row of ${unused}`);
  if (found === undefined) return pictures;
  throw new ModelError(`pictures: expected [${B}], with each of 0 … ${images - 1} (images), found ${found}`);
}

/** @throws ModelError if labels are absent, do not have the shape for the row kind, or are all negative */
export function checkLabels({ labels, shape: [B, T] }: TokenBatch, rows: LanguageModel['rows']): void {
  const fits = rows === 'causal' ? labels?.length === B * T : labels && labels.length % B === 0;
  const found = `found ${labels?.length ?? 'no'} values`;
  if (!fits)
    throw new ModelError(
      rows === 'causal'
        ? `labels: expected [${B}, ${T}] as input_ids, ${found}`
        : `labels: expected [${B}, U], ${found}`,
    );
  // Nothing predicts the first position of a causal row.
  if (!labels!.some((label, i) => label >= 0 && (rows === 'seq2seq' || i % T > 0)))
    throw new ModelError(
      `labels: none of the ${B} rows has a labelled token after its first, so there is no loss; are all labels −100?`,
    );
}

function checkBatch({ input_ids, attention_mask, shape }: TokenBatch): void {
  const [B, T] = shape;
  for (const [name, values] of Object.entries({ input_ids, attention_mask }))
    if (values.length !== B * T || B * T === 0)
      throw new ModelError(`${name}: expected [${B}, ${T}], at least one value, found ${values.length}`);
}

function imageTokenOf(cfg: Blip2Config): number {
  if (cfg.image_token_index !== undefined) return cfg.image_token_index;
  throw new ModelError(
    'config.json has no image_token_index: this checkpoint is older than the <image> placeholder; ' +
      'save it again with a current transformers, or add the id of <image> (50265 in Salesforce/blip2-opt-2.7b, 32100 in -flan-t5-xl)',
  );
}

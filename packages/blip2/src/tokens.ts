/** Token batches on the host, and where the image's rows stand in them. Nothing here computes on a backend. */
import { ModelError, type Blip2Config } from './config';

/** B rows of T tokens, row-major: `[image]·Q, bos, text…`, padded on either side. */
export interface TokenBatch {
  input_ids: Int32Array;
  /** 1 for tokens, 0 for padding. */
  attention_mask: Int32Array;
  /** Wanted id at each position; negative (−100) where none is. Same positions as input_ids: the loss shifts them. */
  labels?: Int32Array;
  shape: [B: number, T: number];
}

/** The prompt of a bare image, `[image]·Q, bos`, for `batch` images: what transformers takes when no text is given. */
export function imagePrompt(cfg: Blip2Config, batch: number): TokenBatch {
  const row = [...Array<number>(cfg.num_query_tokens).fill(imageTokenOf(cfg)), cfg.text_config.bos_token_id];
  const input_ids = Int32Array.from({ length: batch * row.length }, (_, i) => row[i % row.length]);
  return { input_ids, attention_mask: new Int32Array(input_ids.length).fill(1), shape: [batch, row.length] };
}

/** Where each position's embedding comes from: `text` lists the ids to embed, `source` indexes [text rows; image rows]. */
export interface Layout {
  text: Int32Array; // [n]
  source: Int32Array; // [B·T]: below n a text row, from n on the image rows, Q per batch row
}

/**
 * Splits a batch into text and image positions. Unlike transformers, which silently scatters what there is, each row must
 * hold exactly Q image tokens when there are images, and none when there are not. Throws `ModelError`.
 */
export function layout(cfg: Blip2Config, tokens: TokenBatch, images: number | undefined): Layout {
  checkBatch(tokens);
  const [B, T] = tokens.shape;
  if (images !== undefined && images !== B)
    throw new ModelError(`expected one image for each of the ${B} rows of input_ids, got ${images} images`);
  const Q = images === undefined ? 0 : cfg.num_query_tokens;
  const image = images === undefined ? cfg.image_token_index : imageTokenOf(cfg);
  const counts = Array.from({ length: B }, (_, b) => {
    const row = tokens.input_ids.subarray(b * T, (b + 1) * T);
    return row.reduce((count, id) => count + (id === image ? 1 : 0), 0);
  });
  const wrong = counts.flatMap((count, b) => (count === Q ? [] : [`row ${b} has ${count}`]));
  if (wrong.length > 0) {
    const expected = images === undefined ? 'none, because there is no image' : `${Q} (num_query_tokens)`;
    const id = image === undefined ? '' : ` (id ${image})`;
    throw new ModelError(`image tokens${id} per row: expected ${expected}; ${wrong.slice(0, 8).join(', ')}`);
  }
  const text = tokens.input_ids.filter((id) => id !== image);
  let [nextText, nextImage] = [0, text.length];
  const source = tokens.input_ids.map((id) => (id === image ? nextImage++ : nextText++));
  return { text, source };
}

/** Rows of the flattened hidden states that predict a labelled token, and those labels: position t predicts label t + 1. */
export function labelledRows(tokens: TokenBatch): { rows: Int32Array; labels: Int32Array } {
  const [B, T] = tokens.shape;
  const given = tokens.labels;
  if (given?.length !== B * T)
    throw new ModelError(`labels: expected [${B}, ${T}] as input_ids, got ${given?.length ?? 'no'} values`);
  const rows: number[] = [];
  for (let b = 0; b < B; b++)
    for (let t = 0; t + 1 < T; t++) if (given[b * T + t + 1] >= 0) rows.push(b * T + t);
  if (rows.length === 0)
    throw new ModelError(
      `labels: none of the ${B} rows has a labelled token after its first, so there is no loss; are all labels −100?`,
    );
  return { rows: Int32Array.from(rows), labels: Int32Array.from(rows, (row) => given[row + 1]) };
}

function checkBatch({ input_ids, attention_mask, shape }: TokenBatch): void {
  const [B, T] = shape;
  for (const [name, values] of Object.entries({ input_ids, attention_mask }))
    if (values.length !== B * T || B * T === 0)
      throw new ModelError(`${name}: expected [${B}, ${T}], at least one value, got ${values.length}`);
}

function imageTokenOf(cfg: Blip2Config): number {
  if (cfg.image_token_index !== undefined) return cfg.image_token_index;
  throw new ModelError(
    'config.json has no image_token_index: this checkpoint is older than the <image> placeholder; ' +
      'save it again with a current transformers, or add the id of <image> (50265 for OPT checkpoints of Salesforce)',
  );
}

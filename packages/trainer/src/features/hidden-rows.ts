/**
 * Hidden states of a batch below the first layer of the text model that trains. Attention is causal, so those of a picture depend on the
 * picture alone, and those of a text on its picture and its tokens. N packed positions, Q queries, Dt width of the text model.
 */
import { createHash } from 'node:crypto';
import type { Blip2, ImageInput } from '@blip2/blip2';
import { hiddenBelow, segmentsOf } from '@blip2/blip2';
import type { TokenBatch } from '@blip2/nn';
import { dispose, normal, rngKey, tensor, tidy } from '@blip2/nn';

/** A picture or a text of one, at `from` … `from + rows` of the packed positions. */
export interface HiddenEntry {
  id: string;
  from: number;
  rows: number;
}

/** The entries of a batch in the order of its packed positions. @param ids content ids of its pictures */
export function entriesOf({ config }: Blip2, tokens: TokenBatch, ids: readonly string[]): HiddenEntry[] {
  return segmentsOf(config, tokens).map(({ picture, ids: text, from, rows }) => ({
    id: text.length === 0 ? ids[picture] : textId(ids[picture], text),
    from,
    rows,
  }));
}

function textId(picture: string, tokens: Int32Array): string {
  return `${createHash('sha256').update(picture).update(new Uint8Array(tokens.buffer)).digest('hex')}-text`;
}

/** The hidden states of all packed positions [N, Dt]; disposes of `image`. */
export async function hiddenStates(
  model: Blip2,
  image: ImageInput,
  tokens: TokenBatch,
  depth: number,
): Promise<Float32Array> {
  const hidden = tidy(() => hiddenBelow(model, image, tokens, depth));
  const values = (await hidden.data()) as Float32Array;
  dispose([hidden, image]);
  return values;
}

/** The hidden states of a noise picture and a fixed text. */
export function probedStates(model: Blip2, depth: number): Promise<Float32Array> {
  const { num_query_tokens: Q, image_token_index, vision_config, text_config } = model.config;
  const S = vision_config.image_size;
  const text = [2, 3, 5, 8].map((id) => id % text_config.vocab_size);
  const input_ids = Int32Array.from([...new Array<number>(Q).fill(image_token_index!), ...text]);
  const tokens = {
    input_ids,
    attention_mask: new Int32Array(input_ids.length).fill(1),
    labels: input_ids,
    shape: [1, input_ids.length] as [number, number],
  };
  const image = { pixel_values: tensor(normal(rngKey(1), 3 * S * S), [1, 3, S, S]) };
  return hiddenStates(model, image as ImageInput, tokens, depth);
}

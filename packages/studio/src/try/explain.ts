/** The text of a model for a picture, word by word, with probabilities and places. */
import { defaultNewTokens, generate, imageFeatures } from '@blip2/blip2';
import type { Blip2 } from '@blip2/blip2';
import { promptBatch, promptFor, questionPrompt } from '@blip2/data-captions';
import type { Processor } from '@blip2/data-captions';
import { dispose, tensor } from '@blip2/nn';
import type { Tensor3D, Tensor4D } from '@blip2/nn';
import type { TriedText } from '../api';
import { looks, mapOf, queryRows, sharesOf } from './look';
import { wordsOf } from './words';

const USUAL_NEW_TOKENS = 30;

export interface Asked {
  bytes: Uint8Array;
  question?: string;
  prompt?: string;
}

/** @throws DataError for bytes that are no picture; ModelError */
export async function explain(
  name: string,
  model: Blip2,
  processor: Processor,
  { bytes, question, prompt }: Asked,
): Promise<TriedText> {
  const template = promptFor(question === undefined ? 'caption' : 'vqa', prompt, processor);
  const text = question === undefined ? (template ?? '') : questionPrompt(question, template);
  const tokens = promptBatch(processor, [text]);
  const { height, width } = processor.imageSize;
  const pixels = tensor<Tensor4D>(await processor.pixels(bytes), [1, 3, height, width]);
  const image_features = imageFeatures(model, pixels);
  dispose(pixels);
  let rows: Tensor3D | undefined;
  try {
    const options = {
      max_new_tokens: defaultNewTokens(model.config, tokens, USUAL_NEW_TOKENS),
      eos_token_id: processor.eos,
      tokenizer: processor.tokenizer,
    };
    // a Q-Former that reads the question has no rows of the picture alone
    const alone = tokens.instructions === undefined;
    rows = alone ? queryRows(model, image_features) : undefined;
    const [ids] = await generate(model, rows ? { query_embeds: rows } : { image_features }, tokens, options);
    const words = wordsOf(ids, (some) => processor.tokenizer.decode(some, true));
    if (!rows || ids.length === 0)
      return { name, text: processor.decode(ids), words: words.map(({ text }) => ({ text })) };
    const { probabilities, shares } = await sharesOf(model, rows, tokens, ids);
    const looking = await looks(model, image_features);
    return {
      name,
      text: processor.decode(ids),
      words: words.map(({ text, tokens: places }) => ({
        text,
        probability: places.reduce((product, u) => product * probabilities[u], 1),
        map: mapOf(meanOf(places.map((u) => shares[u])), looking),
      })),
    };
  } finally {
    dispose(image_features);
    if (rows) dispose(rows);
  }
}

const meanOf = (lists: readonly (readonly number[])[]) =>
  lists[0].map((_, i) => lists.reduce((sum, list) => sum + list[i], 0) / lists.length);

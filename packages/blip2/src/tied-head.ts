/** Whether a checkpoint's lm_head really is its embed_tokens. */
import type { WeightReader } from '@blip2/weights';
import { sameValues } from '@blip2/weights';
import type { Blip2Config } from './config';

export const EMBED_TOKENS = 'language_model.model.decoder.embed_tokens.weight';
export const LM_HEAD = 'language_model.lm_head.weight';

/**
 * The config, untied where the file contradicts it: transformers 5 keeps both tensors when a checkpoint whose config ties
 * them stores both with different values. What is saved later says so too.
 */
export async function withStoredTie(config: Blip2Config, reader: WeightReader): Promise<Blip2Config> {
  const [embed, head] = [reader.entries.get(EMBED_TOKENS), reader.entries.get(LM_HEAD)];
  if (!config.text_config.tie_word_embeddings || !embed || !head) return config;
  if (embed.shape.join() !== head.shape.join()) return config; // the strict check will name it
  if (await sameValues(reader, EMBED_TOKENS, LM_HEAD)) return config;
  const untied = { tie_word_embeddings: false };
  return {
    ...config,
    text_config: { ...config.text_config, ...untied },
    raw: { ...config.raw, text_config: { ...(config.raw.text_config as object), ...untied } },
  };
}

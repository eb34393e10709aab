import { checkHeads, configFields } from '@blip2/nn';
import type { WordsConfig } from './words';

/** The fields of `qformer_config` in config.json that the Q-Former uses, under the same names. */
export interface QFormerConfig {
  hidden_size: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  intermediate_size: number;
  hidden_act: 'gelu';
  hidden_dropout_prob: number;
  attention_probs_dropout_prob: number;
  layer_norm_eps: number;
  /** f: layers 0, f, 2f, … attend to the image. */
  cross_attention_frequency: number;
  /** Width of the image tokens: hidden_size of the vision encoder. */
  encoder_hidden_size: number;
  /** Whether each layer has a second feed-forward step, for texts (image-text matching, InstructBLIP). */
  use_qformer_text_input: boolean;
  /** Tables of words and positions that are part of the Q-Former (InstructBLIP). */
  words?: WordsConfig;
}

/** The sizes of a Q-Former's tables of words in `qformer_config`. @throws Error as `parseQFormerConfig` */
export function parseWordsConfig(json: unknown, where = 'qformer_config'): WordsConfig {
  const { count } = configFields(json, where);
  return {
    vocab_size: count('vocab_size', 30522),
    max_position_embeddings: count('max_position_embeddings', 512),
  };
}

/**
 * Reads `qformer_config`. Missing fields get the defaults of transformers' `Blip2QFormerConfig`; other keys are ignored.
 * Pass vision_config.hidden_size as `encoder_hidden_size`: BLIP-2 uses it instead of the value in the file.
 * @throws Error with the field (as `where.field`), what was expected and what was found
 */
export function parseQFormerConfig(
  json: unknown,
  where = 'qformer_config',
  encoder_hidden_size?: number,
): QFormerConfig {
  const { count, layers, number, rate, text, flag } = configFields(json, where);
  const cfg: QFormerConfig = {
    hidden_size: count('hidden_size', 768),
    num_hidden_layers: layers('num_hidden_layers', 12),
    num_attention_heads: count('num_attention_heads', 12),
    intermediate_size: count('intermediate_size', 3072),
    hidden_act: text('hidden_act', ['gelu']),
    hidden_dropout_prob: rate('hidden_dropout_prob', 0.1),
    attention_probs_dropout_prob: rate('attention_probs_dropout_prob', 0.1),
    layer_norm_eps: number('layer_norm_eps', 1e-12, (v) => v > 0, 'a number above 0'),
    cross_attention_frequency: count('cross_attention_frequency', 2),
    encoder_hidden_size: encoder_hidden_size ?? count('encoder_hidden_size', 1408),
    use_qformer_text_input: flag('use_qformer_text_input', false),
  };
  checkHeads(cfg, where);
  return cfg;
}

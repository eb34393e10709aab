import { checkHeads, configFields } from '@blip2/nn';
import type { TextConfig } from '@blip2/nn';

/** The fields of `text_config` (model_type "opt") in config.json that the decoder uses, under the same names. */
export interface OptConfig extends TextConfig {
  model_type: 'opt';
  num_attention_heads: number;
  ffn_dim: number;
  max_position_embeddings: number;
  /** true: LayerNorm before each sub-layer (all sizes but 350m); false: after it. */
  do_layer_norm_before: boolean;
  _remove_final_layer_norm: boolean;
  /** Width of the token embeddings; `project_in` and `project_out` exist when it differs from hidden_size. */
  word_embed_proj_dim: number;
  dropout: number;
  attention_dropout: number;
  activation_function: 'relu' | 'gelu';
  enable_bias: boolean;
  bos_token_id: number;
}

/**
 * Reads `text_config`. Missing fields get the defaults of transformers' `OPTConfig`; other keys are ignored.
 * @throws Error with the field (as `where.field`), what was expected and what was found
 */
export function parseOptConfig(json: unknown, where = 'text_config'): OptConfig {
  const { count, layers, rate, flag, text, only, tokenId } = configFields(json, where);
  only('model_type', 'opt');
  only('layer_norm_elementwise_affine', true);
  only('layerdrop', 0);
  const hidden_size = count('hidden_size', 768);
  const cfg: OptConfig = {
    model_type: 'opt',
    vocab_size: count('vocab_size', 50272),
    hidden_size,
    num_hidden_layers: layers('num_hidden_layers', 12),
    num_attention_heads: count('num_attention_heads', 12),
    ffn_dim: count('ffn_dim', 3072),
    max_position_embeddings: count('max_position_embeddings', 2048),
    do_layer_norm_before: flag('do_layer_norm_before', true),
    _remove_final_layer_norm: flag('_remove_final_layer_norm', false),
    word_embed_proj_dim: count('word_embed_proj_dim', hidden_size),
    dropout: rate('dropout', 0.1),
    attention_dropout: rate('attention_dropout', 0),
    activation_function: text('activation_function', ['relu', 'gelu']),
    enable_bias: flag('enable_bias', true),
    tie_word_embeddings: flag('tie_word_embeddings', true),
    pad_token_id: tokenId('pad_token_id', 1),
    bos_token_id: tokenId('bos_token_id', 2),
    eos_token_id: tokenId('eos_token_id', 2),
  };
  checkHeads(cfg, where);
  return cfg;
}

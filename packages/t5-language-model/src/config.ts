import { configFields } from '@blip2/nn';
import type { TextConfig } from '@blip2/nn';

/** The fields of `text_config` (model_type "t5") in config.json, under the names that transformers' `attribute_map` gives them. */
export interface T5Config extends TextConfig {
  model_type: 't5';
  /** Width of one head: `d_kv`. All heads together may be wider or narrower than hidden_size. */
  d_kv: number;
  d_ff: number;
  num_attention_heads: number;
  /** `num_hidden_layers` are the encoder's. */
  num_decoder_layers: number;
  relative_attention_num_buckets: number;
  relative_attention_max_distance: number;
  dropout_rate: number;
  layer_norm_epsilon: number;
  /** `gelu` is the exact one, as in BLIP-2's checkpoints; `gelu_new` the tanh approximation, as in Flan-T5's. */
  dense_act_fn: 'relu' | 'gelu' | 'gelu_new';
  /** The activation gates a second projection (T5 1.1). */
  is_gated_act: boolean;
  /** Hidden states are multiplied by hidden_size^-½ before the head (T5 1.0). */
  scale_decoder_outputs: boolean;
  decoder_start_token_id: number;
}

/**
 * Reads `text_config`. Missing fields get the defaults of transformers' `T5Config`; other keys are ignored.
 * @throws Error with the field (as `where.field`), what was expected and what was found
 */
export function parseT5Config(json: unknown, where = 'text_config'): T5Config {
  const { count, layers, number, rate, flag, tokenId, only } = configFields(json, where);
  only('model_type', 't5');
  only('is_encoder_decoder', true);
  const num_hidden_layers = layers('num_layers', 6);
  const buckets = number(
    'relative_attention_num_buckets',
    32,
    (v) => v >= 4 && v % 2 === 0,
    'an even number of at least 4',
  );
  const tie_word_embeddings = flag('tie_word_embeddings', true);
  const pad_token_id = tokenId('pad_token_id', 0);
  return {
    model_type: 't5',
    vocab_size: count('vocab_size', 32128),
    hidden_size: count('d_model', 512),
    num_hidden_layers,
    num_decoder_layers: layers('num_decoder_layers', num_hidden_layers),
    num_attention_heads: count('num_heads', 8),
    d_kv: count('d_kv', 64),
    d_ff: count('d_ff', 2048),
    relative_attention_num_buckets: buckets,
    relative_attention_max_distance: number(
      'relative_attention_max_distance',
      128,
      (v) => Number.isInteger(v) && v > buckets / 2,
      `a whole number above half of relative_attention_num_buckets (${buckets})`,
    ),
    dropout_rate: rate('dropout_rate', 0.1),
    layer_norm_epsilon: number('layer_norm_epsilon', 1e-6, (v) => v > 0, 'a number above 0'),
    ...activation(json, where),
    tie_word_embeddings,
    // transformers 5 stores this field; before, it followed from the other one.
    scale_decoder_outputs: flag('scale_decoder_outputs', tie_word_embeddings),
    pad_token_id,
    eos_token_id: tokenId('eos_token_id', 1),
    decoder_start_token_id: tokenId('decoder_start_token_id', pad_token_id),
  };
}

const ACTIVATIONS = ['relu', 'gelu', 'gelu_new'] as const;

/** `dense_act_fn` and `is_gated_act` follow from `feed_forward_proj`, unless they are written too. */
function activation(json: unknown, where: string): Pick<T5Config, 'dense_act_fn' | 'is_gated_act'> {
  const { text, flag, read } = configFields(json, where);
  const proj = text('feed_forward_proj', ['relu', 'gelu', 'gated-gelu', 'gated-relu', 'gated-gelu_new']);
  const name = proj === 'gated-gelu' ? 'gelu_new' : proj.replace('gated-', '');
  const is_gated_act = flag('is_gated_act', proj.startsWith('gated-'));
  const known = is_gated_act ? ACTIVATIONS : ACTIVATIONS.slice(0, 2);
  const expected = `${known.map((act) => `"${act}"`).join(' or ')} (is_gated_act ${is_gated_act})`;
  const dense_act_fn = read('dense_act_fn', (v = name) => known.find((act) => act === v), expected);
  return { dense_act_fn, is_gated_act };
}

export const FULL_SIZE_NAME = 'Salesforce/blip2-opt-2.7b';
/** Config of that model, to count its parameters without a download; all other fields have transformers' defaults. */
export const FULL_SIZE = {
  text_config: {
    vocab_size: 50304,
    hidden_size: 2560,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    ffn_dim: 10240,
  },
};

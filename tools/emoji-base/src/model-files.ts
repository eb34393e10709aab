// The text files of models/blip2-emoji-mini, in Hugging Face's format: configuration, tokenizer, image processor.
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Bpe } from './bpe';

/** Ids 0 … 4. OPT begins and ends a text with `</s>`. */
export const SPECIALS = ['<s>', '<pad>', '</s>', '<unk>', '<image>'] as const;
export const VOCAB_SIZE = 2048;
export const NUM_QUERIES = 32;
export const IMAGE_SIZE = 64;
const [PAD, END, IMAGE] = [1, 2, 4];

/** Positions of a sequence: 32 image tokens and 64 of text. */
const MAX_POSITIONS = 96;
const WIDTH = 192;
const HEADS = 6;
const INITIALIZER_RANGE = 0.02; // transformers' default for the vision part, 1e-10, does not train

/** CLIP's mean and standard deviation per channel, which BLIP-2's checkpoints use. */
export const PIXEL_MEAN = [0.48145466, 0.4578275, 0.40821073] as const;
export const PIXEL_STD = [0.26862954, 0.26130258, 0.27577711] as const;

/** config.json of the base: about 6.1 million parameters, no dropout anywhere. */
export function baseConfig(): Record<string, unknown> {
  return {
    architectures: ['Blip2ForConditionalGeneration'],
    model_type: 'blip-2',
    dtype: 'bfloat16',
    image_text_hidden_size: 256,
    image_token_index: IMAGE,
    initializer_range: INITIALIZER_RANGE,
    num_query_tokens: NUM_QUERIES,
    tie_word_embeddings: true,
    use_decoder_only_language_model: true,
    vision_config: {
      model_type: 'blip_2_vision_model',
      attention_dropout: 0.0,
      hidden_act: 'gelu',
      hidden_size: WIDTH,
      image_size: IMAGE_SIZE,
      initializer_range: INITIALIZER_RANGE,
      intermediate_size: 768,
      layer_norm_eps: 1e-6,
      num_attention_heads: HEADS,
      num_hidden_layers: 5,
      patch_size: 8,
      qkv_bias: true,
    },
    qformer_config: {
      model_type: 'blip_2_qformer',
      attention_probs_dropout_prob: 0.0,
      cross_attention_frequency: 1,
      encoder_hidden_size: WIDTH,
      hidden_act: 'gelu',
      hidden_dropout_prob: 0.0,
      hidden_size: WIDTH,
      initializer_range: INITIALIZER_RANGE,
      intermediate_size: 640,
      layer_norm_eps: 1e-12,
      max_position_embeddings: 64,
      num_attention_heads: HEADS,
      num_hidden_layers: 3,
      pad_token_id: 0,
      use_qformer_text_input: false,
      vocab_size: VOCAB_SIZE,
    },
    text_config: {
      model_type: 'opt',
      activation_function: 'relu',
      attention_dropout: 0.0,
      bos_token_id: END,
      do_layer_norm_before: true,
      dropout: 0.0,
      enable_bias: true,
      eos_token_id: END,
      ffn_dim: 768,
      hidden_size: WIDTH,
      init_std: INITIALIZER_RANGE,
      layer_norm_elementwise_affine: true,
      layerdrop: 0.0,
      max_position_embeddings: MAX_POSITIONS,
      num_attention_heads: HEADS,
      num_hidden_layers: 4,
      pad_token_id: PAD,
      tie_word_embeddings: true,
      vocab_size: VOCAB_SIZE,
      word_embed_proj_dim: WIDTH,
    },
  };
}

/** tokenizer.json: byte-level BPE with a prefix space; `</s>` before every text, as OPT's tokenizer adds it. */
function tokenizerJson(bpe: Bpe): object {
  const special = (content: string, id: number) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  });
  const byteLevel = { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true };
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: SPECIALS.map(special),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '</s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [
        { SpecialToken: { id: '</s>', type_id: 0 } },
        { Sequence: { id: 'A', type_id: 0 } },
        { Sequence: { id: 'B', type_id: 0 } },
      ],
      special_tokens: { '</s>': { id: '</s>', ids: [END], tokens: ['</s>'] } },
    },
    decoder: byteLevel,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(bpe.vocab),
      merges: bpe.merges,
    },
  };
}

function tokenizerConfig(): object {
  return {
    tokenizer_class: 'PreTrainedTokenizerFast',
    add_bos_token: true,
    add_prefix_space: true,
    bos_token: '</s>',
    eos_token: '</s>',
    pad_token: '<pad>',
    unk_token: '<unk>',
    clean_up_tokenization_spaces: false,
    model_input_names: ['input_ids', 'attention_mask'],
    model_max_length: MAX_POSITIONS,
    padding_side: 'left',
    processor_class: 'Blip2Processor',
  };
}

function imageProcessor(): object {
  return {
    image_processor_type: 'BlipImageProcessor',
    processor_class: 'Blip2Processor',
    do_convert_rgb: true,
    do_normalize: true,
    do_rescale: true,
    do_resize: true,
    image_mean: PIXEL_MEAN,
    image_std: PIXEL_STD,
    resample: 3,
    rescale_factor: 1 / 255,
    size: { height: IMAGE_SIZE, width: IMAGE_SIZE },
  };
}

/** Writes the files of the model folder, except the weights and the card. */
export async function writeModelFiles(folder: string, bpe: Bpe): Promise<void> {
  await mkdir(folder, { recursive: true });
  const files: Record<string, object> = {
    'config.json': baseConfig(),
    'generation_config.json': { bos_token_id: END, eos_token_id: END, pad_token_id: PAD },
    'preprocessor_config.json': imageProcessor(),
    'processor_config.json': { num_query_tokens: NUM_QUERIES, processor_class: 'Blip2Processor' },
    'special_tokens_map.json': {
      bos_token: '</s>',
      eos_token: '</s>',
      pad_token: '<pad>',
      unk_token: '<unk>',
    },
    'tokenizer.json': tokenizerJson(bpe),
    'tokenizer_config.json': tokenizerConfig(),
  };
  for (const [name, content] of Object.entries(files))
    await writeFile(join(folder, name), JSON.stringify(content, null, 2) + '\n');
}

import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { tiny } from '../spec/golden';
import { blip2Weights, imagePrompt, ModelError, parseConfig, textIds } from './index';

const text_config = {
  model_type: 'opt',
  hidden_size: 2560,
  ffn_dim: 10240,
  num_hidden_layers: 32,
  num_attention_heads: 32,
};
const json = JSON.parse(readFileSync(`${tiny}/config.json`, 'utf8')) as Record<string, unknown>;
const count = (cfg: unknown) =>
  blip2Weights(parseConfig(cfg)).reduce((sum, [, shape]) => sum + shape.reduce((a, b) => a * b, 1), 0);

describe('parseConfig', () => {
  it('fills in the defaults of transformers: opt-2.7b and opt-6.7b have their published sizes', () => {
    expect(count({ text_config: { ...text_config, vocab_size: 50304 } })).toBe(3_744_761_856);
    const large = { hidden_size: 4096, ffn_dim: 16384, vocab_size: 50304 };
    expect(count({ text_config: { ...text_config, ...large } })).toBe(7_752_869_376);
  });

  it('reads Flan-T5 as Salesforce wrote it: blip2-flan-t5-xl has its published size, and no start token', () => {
    const flan = {
      ...{
        model_type: 't5',
        _name_or_path: 'google/flan-t5-xl',
        architectures: ['T5ForConditionalGeneration'],
      },
      ...{ d_model: 2048, d_kv: 64, d_ff: 5120, num_heads: 32, num_layers: 24, num_decoder_layers: 24 },
      ...{
        feed_forward_proj: 'gated-gelu',
        dense_act_fn: 'gelu',
        is_gated_act: true,
        tie_word_embeddings: false,
      },
      ...{
        bos_token_id: 1,
        decoder_start_token_id: 0,
        eos_token_id: 1,
        pad_token_id: 0,
        torch_dtype: 'float32',
      },
      ...{
        n_positions: 512,
        output_past: true,
        task_specific_params: { translation_en_to_de: { prefix: 'x' } },
      },
    };
    const config = { text_config: flan, use_decoder_only_language_model: false, image_token_index: 32100 };
    expect(count(config)).toBe(3_942_446_592);
    expect(textIds(parseConfig(config))).toEqual({
      ...{ rows: 'seq2seq', bos: undefined, eos: 1, pad: 0, imageToken: 32100, numQueryTokens: 32 },
      vqa_prompt: 'Question: {} Short answer:',
    });
    expect(imagePrompt(parseConfig({ ...config, num_query_tokens: 2 }), 1).input_ids).toEqual(
      Int32Array.of(32100, 32100, 1),
    );
  });

  it('keeps unknown keys in raw', () => {
    const stray = {
      ...json,
      projection_dim: 7,
      text_config: { ...(json.text_config as object), prefix: '</s>', dropout: 0.2 },
    };
    const cfg = parseConfig(stray);
    expect(cfg.raw).toEqual(stray);
    expect(cfg.text_config).toMatchObject({ dropout: 0.2 });
  });

  it.each([
    ['blip2 4 bit', { quant_method: 'blip2', bits: 4, version: 2 }],
    ['gptq 4 bit', { quant_method: 'gptq', bits: 4, group_size: 128 }],
    ['awq 4 bit', { quant_method: 'awq', bits: 4 }],
    ['hqq', { quant_method: 'hqq', quant_config: { weight_quant_params: { nbits: 4 } } }],
    ['torchao int4_weight_only', { quant_method: 'torchao', quant_type: 'int4_weight_only' }],
    ['compressed-tensors', { quant_method: 'compressed-tensors', format: 'pack-quantized' }],
    ['fbgemm_fp8', { quant_method: 'fbgemm_fp8', activation_scale_ub: 1200 }],
    ['an unknown method 4 bit', { group_size: 64, bits: 4 }],
  ])('refuses a quantised checkpoint in one sentence: %s', (method, quantization_config) => {
    const text_config = { ...(json.text_config as object), quantization_config };
    const part = { ...json, text_config };
    for (const [cfg, field] of [
      [{ ...json, quantization_config }, 'quantization_config'],
      [part, 'text_config.quantization_config'],
    ] as const)
      expect(() => parseConfig(cfg, 'm/config.json')).toThrow(
        `m/config.json: the checkpoint is quantised: ${method} (${field}), which is not supported; use the original in float32`,
      );
  });

  it.each([
    ['vision_config', 'num_hidden_layers', 1e9],
    ['qformer_config', 'num_hidden_layers', 1e9],
    ['text_config', 'num_hidden_layers', 1e9],
    ['text_config', 'hidden_size', 1e300],
    ['text_config', 'vocab_size', 2 ** 31],
    ['vision_config', 'intermediate_size', 1e18],
    ['vision_config', 'image_size', 8_000_000],
    ['text_config', 'num_hidden_layers', '9'.repeat(1000)],
  ])('refuses an absurd number before tables are built: %s.%s', (part, field, value) => {
    const absurd = { ...json, [part]: { ...(json[part] as object), [field]: value } };
    expect(() => parseConfig(absurd)).toThrow(new RegExp(`${part}\\.${field}: expected .*, found .{1,80}$`));
  });

  it('accepts a quantization_config that is off, of bitsandbytes or of this program', () => {
    for (const quantization_config of [
      null,
      {},
      { load_in_8bit: false, load_in_4bit: false, quant_method: 'bitsandbytes' },
      { load_in_8bit: true, llm_int8_threshold: 6 },
      { load_in_4bit: true, bnb_4bit_quant_type: 'nf4', quant_method: 'bitsandbytes' },
      { quant_method: 'blip2', bits: 4, version: 1 },
    ])
      expect(parseConfig({ ...json, quantization_config }).num_query_tokens).toBe(4);
  });

  it('names other models and parts of BLIP-2', () => {
    expect(() => parseConfig({ model_type: 'instructblipvideo' })).toThrow(/InstructBLIP for videos; use a/);
    expect(() => parseConfig({ model_type: 'blip_2_qformer' })).toThrow(/BLIP-2's Q-Former alone; use a/);
    expect(() => parseConfig({ model_type: 'toString' })).toThrow(/found "toString"; use a/);
  });

  it('reads the image token under both names, and its absence', () => {
    const without = (extra: object) =>
      parseConfig({ ...json, image_token_index: undefined, ...extra }).image_token_index;
    expect(without({ image_token_id: 9 })).toBe(9);
    expect(without({})).toBeUndefined();
    expect(without({ image_token_index: null })).toBeUndefined();
  });

  it('takes the width of image features from the vision tower, not from qformer_config', () => {
    const cfg = parseConfig({
      ...json,
      qformer_config: { ...(json.qformer_config as object), encoder_hidden_size: 1408 },
    });
    expect(cfg.qformer_config.encoder_hidden_size).toBe(24);
  });

  it('textIds has the defaults of transformers', () => {
    expect(textIds(parseConfig({ text_config: {} }))).toEqual({
      rows: 'causal',
      bos: 2,
      eos: 2,
      pad: 1,
      imageToken: undefined,
      numQueryTokens: 32,
    });
    expect(textIds(parseConfig(json))).toMatchObject({ eos: 31, imageToken: 58, numQueryTokens: 4 });
  });

  it.each([
    ['a list', [], /config\.json: expected a JSON object, found \[\]/],
    [
      'another model',
      { model_type: 'llava' },
      /model_type: expected "blip-2" or "instructblip", found "llava"/,
    ],
    [
      "InstructBLIP's Vicuna",
      { model_type: 'instructblip', text_config: { model_type: 'llama' } },
      /text_config: model_type: expected "opt" or "t5", found "llama": LLaMA and Vicuna are not supported; use .*instructblip-flan-t5-xl/,
    ],
    [
      'another language model',
      { text_config: { model_type: 'gpt2' } },
      /text_config: model_type: expected "opt" or "t5", found "gpt2": this language model is not supported/,
    ],
    [
      'a bad count',
      { num_query_tokens: 0 },
      /num_query_tokens: expected a whole number from 1 to 4096, found 0/,
    ],
    [
      'a count that would fill the memory',
      { num_query_tokens: 1e12 },
      /num_query_tokens: expected a whole number from 1 to 4096, found 1000000000000/,
    ],
    [
      'an end token that is no id',
      { text_config: { model_type: 'opt', eos_token_id: [[2]] } },
      /eos_token_id: expected one token id/,
    ],
    [
      'a bad size',
      { vision_config: { hidden_size: '24' } },
      /vision_config\.hidden_size: expected .*found "24"/,
    ],
  ])('refuses %s', (_name, cfg, message) => {
    expect(() => parseConfig(cfg)).toThrow(ModelError);
    expect(() => parseConfig(cfg)).toThrow(message);
  });
});

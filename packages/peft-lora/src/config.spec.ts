import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatLoraConfig, loraConfig, parseLoraConfig } from './config';
import { AdapterError } from './errors';
import { fixture, readJson } from '../spec/fixtures';

const peft = (over: object = {}) => ({
  peft_type: 'LORA',
  r: 4,
  lora_alpha: 8,
  target_modules: ['q_proj'],
  ...over,
});

describe('adapter_config.json', () => {
  it.each(['adapter', 'mixed'])(
    "%s: what PEFT's file sets is written again, and nothing that is off",
    async (folder) => {
      const theirs = await readJson(fixture(`${folder}/adapter_config.json`));
      const ours = JSON.parse(formatLoraConfig(parseLoraConfig(theirs))) as typeof theirs;
      for (const [field, value] of Object.entries(ours)) expect(value, field).toEqual(theirs[field]);
      expect(Object.keys(ours)).toEqual(Object.keys(ours).sort());
      const isSet = (value: unknown) => value !== null && value !== false && JSON.stringify(value) !== '{}';
      const lost = Object.keys(theirs).filter((field) => isSet(theirs[field]) && !(field in ours));
      expect(lost.sort()).toEqual(['megatron_core', 'peft_version', 'qalora_group_size']);
      expect(parseLoraConfig(ours)).toMatchObject(
        JSON.parse(JSON.stringify({ ...parseLoraConfig(theirs), other: {} })),
      );
    },
  );

  it('a new file has only fields that PEFT 0.6 knows', () => {
    const text = formatLoraConfig(loraConfig({ r: 4, target_modules: ['q_proj'], lora_dropout: 0.05 }));
    expect(Object.keys(JSON.parse(text) as object)).toEqual([
      'auto_mapping',
      'base_model_name_or_path',
      'bias',
      'fan_in_fan_out',
      'inference_mode',
      'init_lora_weights',
      'lora_alpha',
      'lora_dropout',
      'peft_type',
      'r',
      'target_modules',
    ]);
  });

  it('a field of a newer PEFT is written where it is on', () => {
    const on = { use_dora: true, use_rslora: true, exclude_modules: ['a'], rank_pattern: { b: 2 } };
    const text = formatLoraConfig(loraConfig({ target_modules: ['q_proj'], ...on }));
    expect(JSON.parse(text)).toMatchObject(on);
  });

  it('unknown fields are preserved, nested or not, except null', () => {
    const names = fc
      .string()
      .filter((name) => name !== '__proto__' && name !== 'other')
      .map((name) => `future_${name}`);
    const value = fc.jsonValue().filter((json) => json !== null);
    fc.assert(
      fc.property(fc.dictionary(names, value), (unknown) => {
        const json = JSON.parse(JSON.stringify(peft(unknown))) as object;
        expect(JSON.parse(formatLoraConfig(parseLoraConfig(json)))).toMatchObject(json);
      }),
    );
  });

  it.each<[string, unknown, RegExp]>([
    ['no object', [], /expected a JSON object, found \[\]/],
    [
      'LoHa',
      peft({ peft_type: 'LOHA' }),
      /peft_type: expected "LORA", found "LOHA": LoHa, which.*merge it in Python/,
    ],
    ['IA3', peft({ peft_type: 'IA3' }), /found "IA3": IA3, which is not supported; merge it in Python/],
    ['prefix tuning', peft({ peft_type: 'PREFIX_TUNING' }), /prefix tuning, .*cannot be merged; train LoRA/],
    ['prompt tuning', peft({ peft_type: 'PROMPT_TUNING' }), /prompt tuning, .*cannot be merged/],
    ['an unknown method', peft({ peft_type: 'toString' }), /found "toString": another method/],
    ['MergedLinear of 2023', peft({ enable_lora: [true, false] }), /enable_lora: expected off/],
    ['no targets', peft({ target_modules: null }), /target_modules: expected a list or a string, found null/],
    ['rank 0', peft({ r: 0 }), /r: expected a whole number > 0, found 0/],
    ['rank as text', peft({ r: '8' }), /r: expected a whole number > 0, found "8"/],
    ['dropout 1', peft({ lora_dropout: 1 }), /lora_dropout: expected a number in \[0, 1\), found 1/],
    [
      'another bias',
      peft({ bias: 'boft_only' }),
      /bias: expected "none", "all" or "lora_only", found "boft_only"/,
    ],
    [
      'aLoRA',
      peft({ alora_invocation_tokens: [1] }),
      /alora_invocation_tokens: expected off \(not supported/,
    ],
    ['DoRA as text', peft({ use_dora: 'yes' }), /use_dora: expected true or false, found "yes"/],
    [
      'DoRA with lora_bias',
      peft({ use_dora: true, lora_bias: true }),
      /lora_bias: expected false together with use_dora/,
    ],
    [
      'lora_bias with another initialisation',
      peft({ lora_bias: true, init_lora_weights: 'gaussian' }),
      /lora_bias: expected init_lora_weights true or false, found "gaussian"/,
    ],
    [
      'orthogonal of an odd rank',
      peft({ r: 3, init_lora_weights: 'orthogonal' }),
      /needs even ranks, found \[3\]/,
    ],
    [
      'target_parameters',
      peft({ target_parameters: ['w'] }),
      /target_parameters: expected off.*found \["w"\]/,
    ],
    [
      'trainable tokens',
      peft({ trainable_token_indices: { embed: [1] } }),
      /trainable_token_indices: expected off/,
    ],
    [
      'PiSSA',
      peft({ init_lora_weights: 'pissa' }),
      /init_lora_weights: expected .*change the base weights.*path_initial_model_for_weight_conversion.*found "pissa"/,
    ],
    ['OLoRA', peft({ init_lora_weights: 'olora' }), /init_lora_weights: expected .*found "olora"/],
    ['ranks of 0', peft({ rank_pattern: { q_proj: 0 } }), /rank_pattern: expected an object of name → rank/],
    [
      'layers with a regular expression',
      peft({ target_modules: 'q', layers_to_transform: 1 }),
      /layers_to_transform: expected a list of target_modules, found a regular expression/,
    ],
    ['layers_pattern alone', peft({ layers_pattern: 'layers' }), /layers_pattern: needs layers_to_transform/],
  ])('%s is refused', (_, json, message) => {
    expect(() => parseLoraConfig(json, 'a/adapter_config.json')).toThrow(AdapterError);
    expect(() => parseLoraConfig(json, 'a/adapter_config.json')).toThrow(message);
    expect(() => parseLoraConfig(json, 'a/adapter_config.json')).toThrow(/^a\/adapter_config.json/);
  });

  it('fan_in_fan_out is set to false, as PEFT does for Linear modules', () => {
    const text = formatLoraConfig(parseLoraConfig(peft({ fan_in_fan_out: true })));
    expect(JSON.parse(text)).toMatchObject({ fan_in_fan_out: false });
  });

  it('all problems are listed in one error', () => {
    expect(() => loraConfig({ r: -1, lora_dropout: 2, other: { use_qalora: true } })).toThrow(
      /r: [^]*lora_dropout: [^]*use_qalora: /,
    );
    expect(() => loraConfig({ other: { use_dora: true } })).toThrow(
      /other.use_dora: expected outside "other"/,
    );
  });

  it('a misspelt option is named', () => {
    expect(() => loraConfig({ alpha: 3 } as object)).toThrow(/unknown option alpha; known: r, lora_alpha/);
  });
});

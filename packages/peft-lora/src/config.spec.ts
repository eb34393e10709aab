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
    "%s: PEFT's file is read and written again with the same fields",
    async (folder) => {
      const theirs = await readJson(fixture(`${folder}/adapter_config.json`));
      const text = formatLoraConfig(parseLoraConfig(theirs));
      expect(JSON.parse(text)).toEqual(theirs);
      expect(Object.keys(JSON.parse(text) as object)).toEqual(Object.keys(theirs).sort());
      expect(text).toContain('\n  "alpha_pattern"');
    },
  );

  it("a new configuration has every field of PEFT's files", async () => {
    const theirs = await readJson(fixture('adapter/adapter_config.json'));
    const ours = JSON.parse(
      formatLoraConfig(loraConfig({ r: 4, lora_alpha: 8, lora_dropout: 0.05 })),
    ) as typeof theirs;
    expect({ ...ours, target_modules: theirs['target_modules'] }).toEqual(theirs);
  });

  it('unknown fields are preserved, nested or not', () => {
    const names = fc
      .string()
      .filter((name) => name !== '__proto__' && name !== 'other')
      .map((name) => `future_${name}`);
    fc.assert(
      fc.property(fc.dictionary(names, fc.jsonValue()), (unknown) => {
        const json = JSON.parse(JSON.stringify(peft(unknown))) as object;
        expect(JSON.parse(formatLoraConfig(parseLoraConfig(json)))).toMatchObject(json);
      }),
    );
  });

  it.each<[string, unknown, RegExp]>([
    ['no object', [], /expected a JSON object, found \[\]/],
    ['another method', peft({ peft_type: 'LOHA' }), /peft_type: expected "LORA", found "LOHA"/],
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

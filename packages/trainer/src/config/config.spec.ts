import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { PresetName } from '@blip2/peft-lora';
import { describe, expect, expectTypeOf, it } from 'vitest';
import { ConfigError, text } from './checks';
import { setting } from './fields';
import { greaterIsBetter } from './metric';
import { parseConfig } from './parse';
import type { FitConfig } from './settings';
import { defaultConfig, PRESETS } from './settings';
import { applyOverrides, fromYaml, readConfigFile, toYaml } from './yaml';

const GIVEN = { model: 'models/base', data: 'data/mine' };

function problemsOf(f: () => unknown): string[] {
  try {
    f();
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as ConfigError).problems;
  }
  throw new Error('expected a ConfigError');
}

describe('names that people use for a setting', () => {
  it.each([
    ['lr', 'learning_rate'],
    ['epochs', 'num_train_epochs'],
    ['batch_size', 'per_device_train_batch_size'],
    ['batch-size', 'per_device_train_batch_size'],
    ['steps', 'max_steps'],
    ['warmup', 'warmup_ratio'],
    ['wd', 'weight_decay'],
    ['scheduler', 'lr_scheduler_type'],
  ])('%s leads to %s', (name, setting) => {
    expect(() => parseConfig({ model: 'm', data: 'd', [name]: 1 })).toThrow(`(did you mean ${setting}?)`);
  });
});

describe('parseConfig', () => {
  it.each(PRESETS)('fills in the defaults of preset %s', (preset) => {
    const config = parseConfig({ ...GIVEN, preset });
    expect(config).toEqual({ ...defaultConfig(preset), ...GIVEN });
  });

  it('merges nested settings key by key and treats null as not given', () => {
    const config = parseConfig({ ...GIVEN, lora: { r: 4, lora_alpha: null }, eval_steps: null });
    expect(config.lora).toEqual({ r: 4, lora_alpha: 32, lora_dropout: 0.05 });
    expect(config).not.toHaveProperty('eval_steps');
  });

  it('lists every problem in one error, unknown keys with near names', () => {
    const raw = {
      data: 'x',
      learning_rat: 1e-3,
      preset: 'loraa',
      lora: { rank: 8, r: 0, lora_dropout: 1 },
      num_train_epochs: '3',
      max_steps: 1.5,
      prompt: 7,
      parts_pattern: '(',
      also_train: ['qformer', '('],
      adam_beta1: NaN,
      generation: 5,
      zzzzzzzzzzzz: 1,
    };
    const problems = problemsOf(() => parseConfig(raw, 'my.yaml'));
    expect(problems).toEqual([
      'learning_rat: unknown setting (did you mean learning_rate?)',
      'zzzzzzzzzzzz: unknown setting',
      'model: expected a non-empty text, found nothing',
      'preset: expected one of lora, qformer, qformer-projection, lora+qformer, full (did you mean lora?), found "loraa"',
      'lora.rank: unknown setting (did you mean lora.r?)',
      'lora.r: expected a whole number at least 1, found 0',
      'lora.lora_dropout: expected a number at least 0 and below 1, found 1',
      expect.stringMatching(/^also_train: expected a list of valid regular expressions \(.*\), found/),
      'adam_beta1: expected a number at least 0 and below 1, found null',
      'num_train_epochs: expected a number above 0, found "3"',
      'max_steps: expected a whole number at least 1, found 1.5',
      'prompt: expected a non-empty text, found 7',
      expect.stringMatching(/^generation: expected a mapping with max_new_tokens, num_beams, .*, found 5$/),
      expect.stringMatching(/^parts_pattern: expected a valid regular expression \(.*\), found "\("$/),
    ]);
    expect(() => parseConfig(raw, 'my.yaml')).toThrow(/^my\.yaml: 14 problems\n {2}learning_rat/);
  });

  it.each([
    ['adam_epsilon', 1e-46, 'a number above 0 in float32, where this is 0'],
    ['adam_beta2', 0.999999999, 'a number at least 0 and below 1 in float32, where this is 1'],
    ['learning_rate', 1e39, 'a number above 0 in float32, where this is Infinity'],
    ['weight_decay', 1e-50, 'a number at least 0 in float32, where this is 0'],
  ])('refuses %s %s, which float32 cannot hold', (name, value, expected) => {
    expect(() => parseConfig({ ...GIVEN, [name]: value })).toThrow(`${name}: expected ${expected}`);
    expect(parseConfig({ ...GIVEN, seed: 2 ** 32 - 1 }).seed).toBe(2 ** 32 - 1);
  });

  it('turns the feature cache off for augmented images, and refuses both at once', () => {
    const augmented = { ...GIVEN, image_augmentation: 'crop+flip' };
    expect(parseConfig(augmented).cache_features).toBe(false);
    expect(parseConfig(parseConfig(augmented)).cache_features).toBe(false);
    expect(problemsOf(() => parseConfig({ ...augmented, cache_features: true }))).toEqual([
      expect.stringMatching(/^image_augmentation: shows other pixels at each visit/),
    ]);
    expect(problemsOf(() => parseConfig({ ...GIVEN, image_augmentation: 'flip' }))).toEqual([
      'image_augmentation: expected one of crop, crop+flip (did you mean crop+flip?), found "flip"',
    ]);
  });

  it('refuses what is no mapping and settings that contradict each other', () => {
    expect(() => parseConfig([1])).toThrow('expected a mapping of settings, found [1]');
    expect(() => parseConfig(null)).toThrow('found null');
    const elsewhere = { ...GIVEN, preset: 'qformer', lora: { r: 8 } };
    expect(problemsOf(() => parseConfig(elsewhere))).toEqual([
      expect.stringContaining('lora: the preset qformer has no LoRA'),
    ]);
    expect(() => parseConfig({ ...GIVEN, metric_for_best_model: 'eval_exact' })).toThrow(
      'need predict_with_generate',
    );
  });
});

it('a setting cannot leave out whether it shapes the result', () => {
  // @ts-expect-error `shapes` is missing: the identity of a run could forget the setting
  setting(text, { doc: 'a setting' });
});

it('FitConfig has what has a default, and may have the rest', () => {
  expectTypeOf<FitConfig['learning_rate']>().toEqualTypeOf<number>();
  expectTypeOf<FitConfig['eval_steps']>().toEqualTypeOf<number | undefined>();
  expectTypeOf<FitConfig['preset']>().toEqualTypeOf<PresetName>();
  expectTypeOf<FitConfig['generation']>().toEqualTypeOf<{
    num_beams: number;
    max_new_tokens?: number;
    min_new_tokens?: number;
    repetition_penalty?: number;
    length_penalty?: number;
    no_repeat_ngram_size?: number;
  }>();
  expectTypeOf<NonNullable<FitConfig['lora']>['rank_pattern']>().toEqualTypeOf<
    Record<string, number> | undefined
  >();
});

describe('the lora block', () => {
  const withLora = (lora: Record<string, unknown>) => parseConfig({ ...GIVEN, lora });

  it("takes PEFT's options under PEFT's names", () => {
    const lora = {
      r: 4,
      use_rslora: true,
      use_dora: true,
      rank_pattern: { q_proj: 8 },
      alpha_pattern: { '^language.*q_proj': 16 },
      target_modules: ['q_proj', 'fc1'],
      exclude_modules: 'vision.*',
      layers_to_transform: [0, 1],
      layers_pattern: 'layers',
      init_lora_weights: 'gaussian',
      bias: 'lora_only',
      modules_to_save: ['language_projection'],
    };
    expect(withLora(lora).lora).toEqual({ lora_alpha: 32, lora_dropout: 0.05, ...lora });
    const config = withLora(lora);
    expect(fromYaml(toYaml(config))).toEqual(config);
  });

  it('refuses by name what peft-lora refuses, and wrong values and slips', () => {
    const refused = { use_qalora: true, layer_replication: [[0, 1]], use_rsloar: true, bias: 'weights' };
    expect(
      problemsOf(() => withLora({ ...refused, init_lora_weights: 'pissa', rank_pattern: { q: 0 } })),
    ).toEqual([
      expect.stringMatching(/^lora\.use_qalora: expected off \(not supported.*found true$/),
      expect.stringMatching(/^lora\.layer_replication: expected off/),
      'lora.use_rsloar: unknown setting (did you mean lora.use_rslora?)',
      'lora.rank_pattern: expected a mapping of module name (or regular expression) to rank, found {"q":0}',
      'lora.init_lora_weights: expected true, false, gaussian or orthogonal, found "pissa"',
      'lora.bias: expected one of none, all, lora_only, found "weights"',
    ]);
  });

  it('refuses together what PEFT refuses together', () => {
    expect(problemsOf(() => withLora({ use_dora: true, lora_bias: true }))).toEqual([
      'lora.lora_bias: expected false together with use_dora',
    ]);
    expect(problemsOf(() => withLora({ layers_pattern: 'layers' }))).toEqual([
      'lora.layers_pattern: needs layers_to_transform',
    ]);
  });
});

describe('the metric for the best model', () => {
  const by = (metric_for_best_model: string, more: object = {}) =>
    parseConfig({ ...GIVEN, metric_for_best_model, ...more }).metric_for_best_model;

  it('may leave out eval_, as in transformers', () => {
    expect(by('loss')).toBe('eval_loss');
    expect(by('cider_d', { predict_with_generate: true })).toBe('eval_cider_d');
    expect(by('eval_accuracy_colour', { predict_with_generate: true, task: 'vqa' })).toBe(
      'eval_accuracy_colour',
    );
    expect(() => by('accuracy', { predict_with_generate: true })).toThrow(
      'expected one of eval_loss, eval_exact',
    );
    expect(() => by('cider_d', { predict_with_generate: true, task: 'vqa' })).toThrow('eval_accuracy');
  });

  it('is better when it is greater, unless it is a loss or a sign of degeneration', () => {
    expect(['eval_loss', 'eval_cider_d', 'eval_identical_texts', 'eval_exact'].map(greaterIsBetter)).toEqual([
      false,
      true,
      false,
      true,
    ]);
  });
});

it('shares of splits must leave something for training', () => {
  const shares = { split_fractions: { validation: 0.5, test: 0.5 } };
  expect(problemsOf(() => parseConfig({ ...GIVEN, ...shares }))).toEqual([
    'split_fractions: expected a rest for training, found 0.5 + 0.5',
  ]);
});

describe('YAML', () => {
  it('reads back what it wrote', () => {
    const config = parseConfig({
      ...GIVEN,
      prompt: 'a photo of: ',
      parts_pattern: '^(?<subject>[^,]+)',
      learning_rate: 1e-5,
      lora: { target_modules: ['q_proj', 'v_proj'] },
    });
    expect(fromYaml(toYaml(config))).toEqual(config);
  });

  it('names the file when it is not there, no YAML, or no mapping', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'blip2-config-'));
    await expect(readConfigFile(join(dir, 'none.yaml'))).rejects.toThrow(
      /none\.yaml: 1 problem\n {2}there is no/,
    );
    await writeFile(join(dir, 'bad.yaml'), 'a: [1');
    await expect(readConfigFile(join(dir, 'bad.yaml'))).rejects.toThrow(
      /bad\.yaml.*\n {2}not readable as YAML/,
    );
    await writeFile(join(dir, 'list.yaml'), '- 1');
    await expect(readConfigFile(join(dir, 'list.yaml'))).rejects.toThrow('expected a mapping');
    await writeFile(join(dir, 'empty.yaml'), '');
    expect(await readConfigFile(join(dir, 'empty.yaml'))).toEqual({});
  });
});

describe('applyOverrides', () => {
  it('lays typed values over settings without touching the original', () => {
    const raw = { ...GIVEN, lora: { r: 4 } };
    const out = applyOverrides(raw, [
      'lora.r=8',
      'lora.target_modules=[q_proj, v_proj]',
      'preset=qformer',
      'controls=true',
      'prompt="1"',
      'generation.num_beams=5',
    ]);
    expect(out).toEqual({
      ...GIVEN,
      lora: { r: 8, target_modules: ['q_proj', 'v_proj'] },
      preset: 'qformer',
      controls: true,
      prompt: '1',
      generation: { num_beams: 5 },
    });
    expect(raw.lora.r).toBe(4);
    expect(parseConfig({ ...out, lora: undefined }).learning_rate).toBe(
      defaultConfig('qformer').learning_rate,
    );
  });

  it('refuses pairs it cannot read', () => {
    expect(() => applyOverrides({}, ['lora.r'])).toThrow('expected key=value');
    expect(() => applyOverrides({ seed: 1 }, ['seed.x=1'])).toThrow('seed is a single value');
    expect(() => applyOverrides({}, ['__proto__.x=1'])).toThrow('expected key=value');
    expect(() => applyOverrides({}, ['a=[1'])).toThrow('not readable as YAML');
    expect(() => applyOverrides({}, ['prompt=!photo of'])).toThrow('Unresolved tag');
  });
});

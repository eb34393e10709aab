/** The JSON Schema and parseConfig agree: what a run accepts an editor accepts, and both refuse common mistakes. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Ajv2020 } from 'ajv/dist/2020.js';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ConfigError } from './checks';
import type { Fields, Setting } from './fields';
import { fieldsOf } from './fields';
import { parseConfig } from './parse';
import { fitSchema, settings } from './settings';
import { readConfigFile } from './yaml';

const recipes = fileURLToPath(new URL('../../../../recipes/', import.meta.url));

const isRegex = (source: string) => {
  try {
    return Boolean(new RegExp(source));
  } catch {
    return false;
  }
};
const ajv = new Ajv2020({
  strict: true,
  allowUnionTypes: true,
  allErrors: true,
  formats: { regex: isRegex },
});
const validate = ajv.compile(fitSchema);

function problemsOf(raw: unknown): string[] {
  try {
    parseConfig(raw);
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
}

/** Values of every kind, many of them right for some setting. */
const scalar = fc.constantFrom<unknown>(
  ...[
    0,
    1,
    2,
    0.5,
    0.05,
    1.5,
    -1,
    1e-8,
    2 ** 32,
    NaN,
    null,
    true,
    false,
    '',
    'x',
    '(',
    '(?<a>.)',
    'a.b',
    '12',
  ],
  ...[
    'caption',
    'vqa',
    'lora',
    'qformer',
    'full',
    'auto',
    'cpu',
    'none',
    'test',
    'crop',
    'linear',
    'all',
    'gaussian',
  ],
);
const value = fc.oneof(
  { weight: 4, arbitrary: scalar },
  { weight: 1, arbitrary: fc.array(scalar, { maxLength: 2 }) },
  { weight: 1, arbitrary: fc.dictionary(fc.constantFrom('q_proj', 'r', 'fc1'), scalar, { maxKeys: 2 }) },
);

function recordOf(fields: Fields): fc.Arbitrary<object> {
  const entries = Object.entries(fields).map(([key, { check }]) => {
    const inner = fieldsOf(check);
    return fc.record({ [key]: inner ? fc.oneof(recordOf(inner), value) : value });
  });
  return fc
    .array(fc.oneof(...entries), { maxLength: 3 })
    .map((parts) => Object.assign({}, ...parts) as object);
}

const minimal = { model: 'm', data: 'd' };

describe('the JSON Schema of the settings', () => {
  it.each(readdirSync(recipes).filter((name) => name.endsWith('.yaml')))(
    'accepts recipes/%s',
    async (name) => {
      validate(await readConfigFile(join(recipes, name)));
      expect(validate.errors).toBeNull();
    },
  );

  it('accepts whatever parseConfig accepts', () => {
    let accepted = 0;
    const agrees = (given: object) => {
      const raw = { ...minimal, ...given };
      if (problemsOf(raw).length > 0) return;
      accepted++;
      validate(raw);
      expect(validate.errors, JSON.stringify(raw)).toBeNull();
      validate(parseConfig(raw));
      expect(validate.errors, JSON.stringify(raw)).toBeNull();
    };
    fc.assert(fc.property(recordOf(settings), agrees), { numRuns: 3000, seed: 15 });
    expect(accepted).toBeGreaterThan(300);
  });

  // which metrics there are depends on other settings
  const single = Object.entries<Setting>(settings).filter(
    ([key, { check }]) => key !== 'metric_for_best_model' && !fieldsOf(check),
  );
  it.each(single)('agrees with parseConfig on each value of %s alone', (key) => {
    for (const one of fc.sample(value, { numRuns: 200, seed: 3 })) {
      const raw = { ...minimal, [key]: one };
      const refused = problemsOf(raw).some((line) => line.startsWith(`${key}: expected `));
      expect(validate(raw), JSON.stringify(raw)).toBe(!refused);
    }
  });

  it.each([
    ['an unknown setting', { learning_rat: 1 }],
    ['an unknown setting of lora', { lora: { rank: 8 } }],
    ['a text for a number', { num_train_epochs: '3' }],
    ['a fraction of a step', { max_steps: 1.5 }],
    ['a value out of range', { lora: { lora_dropout: 1 } }],
    ['a misspelt choice', { preset: 'loraa' }],
    ['a value for a mapping', { generation: 5 }],
    ['a broken regular expression', { also_train: ['('] }],
    ['a pattern without groups', { parts_pattern: 'a+' }],
    ['no model', { model: undefined }],
    ['an empty path', { data: '' }],
    ['a negative layer', { lora: { layers_to_transform: -1 } }],
  ])('refuses what parseConfig refuses: %s', (_what, mistake) => {
    const raw = JSON.parse(JSON.stringify({ ...minimal, ...mistake })) as object;
    expect(problemsOf(raw)).not.toEqual([]);
    expect(validate(raw)).toBe(false);
  });

  it('describes every setting, with ranges, choices and defaults', () => {
    const { properties, required } = fitSchema as { properties: Record<string, object>; required: string[] };
    expect(Object.keys(properties)).toEqual(Object.keys(settings));
    expect(required).toEqual(['model', 'data']);
    for (const one of Object.values(properties)) expect(one).toHaveProperty('description');
    expect(properties.weight_decay).toMatchObject({ type: ['number', 'null'], minimum: 0, default: 0.01 });
    expect(properties.task).toMatchObject({ enum: ['caption', 'vqa', null], default: 'caption' });
  });
});

import { describe, expect, it } from 'vitest';
import { loraConfig } from './config';
import type { LoraConfig } from './config';
import { AdapterError } from './errors';
import { matchTargets } from './match';
import { countPreset, trainableLine } from './presets';
import type { WeightTable } from '@blip2/weights';
import { openWeights } from '@blip2/weights/node';
import { untiedTable } from './ties';
import { BASE, fixture, opt27bTable, readJson } from '../spec/fixtures';

interface Golden {
  config: Partial<LoraConfig>;
  modules: Record<string, { r: number; scaling: number }>;
  line?: string;
}
const golden = (await readJson(fixture('matching.json'))) as unknown as Golden[];
const reader = await openWeights(fixture('base'));
const table: WeightTable = [...reader.entries.values()].map(({ name, shape }) => [name, shape]);
await reader.close();

describe('as PEFT matches on the tiny BLIP-2', () => {
  it.each(golden.map((one) => [JSON.stringify(one.config), one] as const))(
    '%s',
    (_, { config, modules, line }) => {
      if (line === undefined) {
        expect(() => matchTargets(loraConfig(config), table, false)).toThrow(AdapterError);
        return;
      }
      const targets = matchTargets(
        loraConfig(config),
        untiedTable(table, loraConfig(config), BASE.ties),
        false,
      );
      expect(Object.fromEntries(targets.map(({ module, r, scaling }) => [module, { r, scaling }]))).toEqual(
        modules,
      );

      // PEFT allows names in a list that match nothing.
      const isServed = (target: string) =>
        Object.keys(modules).some((module) => `.${module}`.endsWith(`.${target}`));
      if (Array.isArray(config.target_modules) && !config.target_modules.every(isServed)) {
        expect(() => matchTargets(loraConfig(config), table)).toThrow(AdapterError);
        return;
      }
      const patterns = (config.modules_to_save ?? []).map((module) => `^${module}\\.`);
      const { trainable, all } = countPreset(table, { lora: config, patterns }, {}, BASE);
      // PEFT's total includes a second copy of modules_to_save, which this package does not make.
      if (patterns.length === 0) expect(trainableLine(trainable, all)).toBe(line);
      else expect(line).toMatch(new RegExp(`^trainable params: ${trainable.toLocaleString('en-US')} `));
    },
  );
});

describe('targets', () => {
  const match = (options: Partial<LoraConfig>) => matchTargets(loraConfig(options), opt27bTable());
  const fails = (options: Partial<LoraConfig>) => {
    expect(() => match(options)).toThrow(AdapterError);
    return expect(() => match(options));
  };

  it('a name matches after a dot only: "v" is neither qkv nor v_proj', () => {
    fails({ target_modules: ['v'] }).toThrow(
      /match nothing among \d+ Linear modules:\n {2}"v"; similar names: /,
    );
    expect(match({ target_modules: ['qkv'] })).toHaveLength(39);
  });

  it('a name without a match is an error with similar names', () => {
    fails({ target_modules: ['q_proj', 'out_prj'] }).toThrow(/"out_prj"; similar names: out_proj/);
  });

  it('refuses a regular expression that matches nothing or is invalid, and an empty list', () => {
    fails({ target_modules: '.*k_prj' }).toThrow(/".\*k_prj"; similar names: .*k_proj/);
    fails({ target_modules: '(q' }).toThrow(/"\(q": expected a regular expression/);
    fails({ target_modules: [] }).toThrow(/the list is empty/);
  });

  it('refuses a name whose modules are all excluded', () => {
    fails({ target_modules: ['q_proj', 'query'], exclude_modules: ['query'] }).toThrow(
      /"query": all its modules are excluded/,
    );
  });

  it.each(['self_attn', 'embed_tokens', 'patch_embedding', 'final_layer_norm', 'qformer'])(
    '%s is not a Linear',
    (name) => {
      fails({ target_modules: [name] }).toThrow(/expected Linear modules .*found also:\n {2}\w/s);
    },
  );

  it('all-linear excludes the head and the embeddings (41,709,568 parameters at r 16)', () => {
    const all = match({ target_modules: 'all-linear', r: 16 });
    expect(all.reduce((sum, target) => sum + target.r * (target.in + target.out), 0)).toBe(41_709_568);
    const untied: WeightTable = [...opt27bTable(), ['language_model.lm_head.weight', [50304, 2560]]];
    expect(matchTargets(loraConfig({ target_modules: 'all-linear' }), untied)).toHaveLength(all.length);
  });
});

import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { add, flatten } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { openWeights, writeSafetensors } from '@blip2/weights/node';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { applyAdapter } from './apply';
import type { LoraConfig } from './config';
import { AdapterError } from './errors';
import { loadAdapter, saveAdapter } from './adapter-folder';
import { addLora, loraParts, mergeLora, withoutLora } from './lora';
import type { PresetName } from './presets';
import { applyPreset, trainable } from './presets';
import { BASE, baseTree, fixture, random, readJson, settings, readTensors, valuesOf } from '../spec/fixtures';

let folder: string;
let base: object;
beforeAll(async () => {
  await useBackend('cpu');
  folder = await mkdtemp(join(tmpdir(), 'adapter-'));
  base = await baseTree();
});
afterAll(() => rm(folder, { recursive: true }));
let cases = 0;
const freshPath = () => join(folder, `case-${cases++}`);

/** Changes every Variable of a tree, in place of training. */
function train<T extends object>(tree: T): T {
  let seed = 100;
  for (const leaf of trainable(tree).values()) {
    leaf.assign(add(leaf, random(seed++, ...leaf.shape)));
  }
  return tree;
}

async function contents(tree: object): Promise<Record<string, number[]>> {
  const entries = [...flatten(tree)].map(async ([name, leaf]) => [name, await valuesOf(leaf)] as const);
  return Object.fromEntries(await Promise.all(entries));
}

describe('an adapter written by PEFT', () => {
  it.each(['adapter', 'mixed'])('%s: merges to the weights that PEFT merges', async (name) => {
    const tree = applyAdapter(base, await loadAdapter(fixture(name)));
    const merged = flatten(mergeLora(tree));
    const prefix = `merged.${name}.`;
    const golden = await readTensors(fixture('golden.safetensors'), (key) => key.startsWith(prefix));
    expect([...loraParts(tree).keys()].map((module) => `${prefix}${module}.weight`).sort()).toEqual(
      [...golden.keys()].sort(),
    );
    for (const [key, expected] of golden) {
      const ours = await valuesOf(merged.get(key.slice(prefix.length))!);
      (await valuesOf(expected)).forEach((value, i) => expect(Math.abs(ours[i]! - value)).toBeLessThan(1e-6));
    }
  });

  it.each(['adapter', 'mixed'])(
    '%s: saving it again keeps the configuration and the tensors',
    async (name) => {
      const adapter = await loadAdapter(fixture(name));
      const dir = freshPath();
      await saveAdapter(dir, applyAdapter(base, adapter, { trainable: true }), adapter.config);
      expect(await readJson(join(dir, 'adapter_config.json'))).toEqual(
        settings(await readJson(fixture(`${name}/adapter_config.json`))),
      );
      const [ours, theirs] = await Promise.all(
        [dir, fixture(name)].map((d) => openWeights(join(d, 'adapter_model.safetensors'))),
      );
      expect(ours!.metadata).toEqual(theirs!.metadata);
      expect([...ours!.entries.keys()].sort()).toEqual([...theirs!.entries.keys()].sort());
      for (const [key, { shape }] of theirs!.entries) {
        expect(ours!.entries.get(key)!.shape).toEqual(shape);
        expect(await ours!.readFloat32(key)).toEqual(await theirs!.readFloat32(key));
      }
      await Promise.all([ours!.close(), theirs!.close()]);
      expect((await readdir(dir)).sort()).toEqual([
        'README.md',
        'adapter_config.json',
        'adapter_model.safetensors',
      ]);
    },
  );
});

/** Fields of LoraConfig of PEFT 0.6 that a written file may have. */
const PEFT_06 = [
  'auto_mapping',
  'base_model_name_or_path',
  'bias',
  'fan_in_fan_out',
  'inference_mode',
  'init_lora_weights',
  'lora_alpha',
  'lora_dropout',
  'modules_to_save',
  'peft_type',
  'r',
  'target_modules',
];

describe('save → load', () => {
  it.each<PresetName>(['lora', 'qformer', 'qformer-projection', 'lora+qformer'])(
    '%s: keeps every bit',
    async (preset) => {
      const dir = freshPath();
      const { params, adapter: made } = applyPreset(base, preset, {}, 3, BASE);
      const tree = train(params);
      await saveAdapter(dir, tree, { ...made, base_model_name_or_path: 'org/base' });
      const adapter = await loadAdapter(dir);
      const resumed = applyAdapter(base, adapter, { trainable: true });
      expect(await contents(resumed)).toEqual(await contents(tree));
      expect([...trainable(resumed).keys()].sort()).toEqual([...trainable(tree).keys()].sort());
      expect(trainable(applyAdapter(base, adapter)).size).toBe(0);

      const hasBare = preset === 'qformer-projection' || preset === 'lora+qformer';
      const config = await readJson(join(dir, 'adapter_config.json'));
      const card = await readFile(join(dir, 'README.md'), 'utf8');
      expect(adapter.tensors.has('query_tokens')).toBe(hasBare);
      // PEFT 0.6 reads these fields and no others.
      expect(Object.keys(config).filter((field) => !PEFT_06.includes(field))).toEqual([]);
      expect(Object.values(config).filter((value) => value === null)).toEqual([]);
      expect(card.includes('query_tokens')).toBe(hasBare);
      expect(card).toContain('base_model: org/base\n');
      expect(card.includes('PEFT before 0.12 refuses')).toBe(!preset.startsWith('lora'));
      const whole = {
        lora: undefined,
        qformer: ['qformer'],
        'qformer-projection': ['language_projection', 'qformer'],
      };
      expect(config['modules_to_save']).toEqual(
        { ...whole, 'lora+qformer': whole['qformer-projection'] }[preset as never],
      );
    },
  );

  it('works for any configuration', async () => {
    const some = fc.subarray(['q_proj', 'fc1', 'query', 'dense', 'language_projection'], { minLength: 1 });
    const options = fc.record({
      target_modules: some,
      r: fc.integer({ min: 1, max: 6 }),
      lora_alpha: fc.integer({ min: 1, max: 64 }),
      lora_dropout: fc.constantFrom(0, 0.05),
      use_rslora: fc.boolean(),
      rank_pattern: fc.dictionary(
        fc.constantFrom('q_proj', 'layers\\.1.*', 'fc1'),
        fc.integer({ min: 1, max: 5 }),
      ),
      alpha_pattern: fc.dictionary(fc.constantFrom('query', 'fc1'), fc.integer({ min: 1, max: 5 })),
    });
    await fc.assert(
      fc.asyncProperty(options, async (config: Partial<LoraConfig>) => {
        const dir = freshPath();
        const { tree } = addLora(base, { ...config, init_lora_weights: false }, 1);
        await saveAdapter(dir, tree, config);
        const back = applyAdapter(base, await loadAdapter(dir));
        expect(await contents(back)).toEqual(await contents(tree));
        const settings = (one: object) =>
          [...loraParts(one)].map(([m, { scaling, dropout }]) => [m, scaling, dropout]);
        expect(settings(back)).toEqual(settings(tree));
      }),
      { numRuns: 15 },
    );
  });

  it('updates an existing folder, keeps other files and removes an outdated extra file', async () => {
    const dir = freshPath();
    await mkdir(dir);
    await writeFile(join(dir, 'notes.txt'), 'mine');
    await saveAdapter(dir, applyPreset(base, 'qformer-projection').params);
    await writeFile(join(dir, 'extra_trainables.safetensors'), 'of version 0.1');
    const { params, adapter } = applyPreset(base, 'lora', {}, 0, BASE);
    await saveAdapter(dir, params, adapter);
    expect((await readdir(dir)).sort()).toEqual([
      'README.md',
      'adapter_config.json',
      'adapter_model.safetensors',
      'notes.txt',
    ]);
    expect((await loadAdapter(dir)).tensors.size).toBe(0);
    expect((await readdir(folder)).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });

  it('refuses a configuration that differs from the tree, nothing to save, and everything to save', async () => {
    const dir = freshPath();
    const { params: tree, adapter } = applyPreset(base, 'lora', {}, 0, BASE);
    await expect(saveAdapter(dir, tree, { ...adapter, r: 8 })).rejects.toThrow(
      /the configuration has r 8, scaling 4, the tree has r 16, scaling 2/,
    );
    await expect(saveAdapter(dir, tree, { ...adapter, target_modules: ['q_proj'] })).rejects.toThrow(
      /k_proj: the tree has an adapter, the configuration has none/,
    );
    await expect(saveAdapter(dir, base)).rejects.toThrow(/nothing to save/);
    await expect(saveAdapter(dir, applyPreset(base, 'full').params)).rejects.toThrow(/save the whole model/);
    await expect(readdir(dir)).rejects.toThrow(/ENOENT/);
  });
});

describe('broken adapters', () => {
  const PREFIX = 'base_model.model.language_model.model.decoder.layers.0.self_attn';
  /** The PEFT fixture with edited tensors and configuration. */
  async function edited(
    edit: (tensors: Map<string, number[]>) => void,
    config: object = {},
  ): Promise<string> {
    const dir = freshPath();
    await mkdir(dir);
    const json = await readJson(fixture('adapter/adapter_config.json'));
    await writeFile(join(dir, 'adapter_config.json'), JSON.stringify({ ...json, ...config }));
    const reader = await openWeights(fixture('adapter/adapter_model.safetensors'));
    const shapes = new Map([...reader.entries].map(([name, { shape }]) => [name, shape]));
    await reader.close();
    edit(shapes);
    const tensors = [...shapes].map(([name, shape]) => ({
      name,
      shape,
      dtype: 'F32' as const,
      data: new Float32Array(shape.reduce((a, b) => a * b, 1)),
    }));
    await writeSafetensors(join(dir, 'adapter_model.safetensors'), tensors);
    return dir;
  }
  const error = async (dir: string): Promise<AdapterError> => {
    const thrown: unknown = await loadAdapter(dir)
      .then((adapter) => applyAdapter(base, adapter))
      .catch((e: unknown) => e);
    expect(thrown).toBeInstanceOf(AdapterError);
    expect((thrown as Error).message).toContain(dir);
    return thrown as AdapterError;
  };

  it('missing, unexpected and misshapen tensors are listed in one error', async () => {
    const dir = await edited(
      (tensors) => {
        tensors.delete(`${PREFIX}.q_proj.lora_A.weight`);
        tensors.delete(`${PREFIX}.q_proj.lora_B.weight`);
        tensors.set(`${PREFIX}.k_proj.lora_A.weight`, [3, 16]);
        tensors.set(`base_model.model.elsewhere.lora_A.weight`, [4, 16]);
        tensors.set(`base_model.model.elsewhere.lora_B.weight`, [16, 4]);
      },
      { base_model_name_or_path: 'org/other' },
    );
    expect((await error(dir)).problems.map((problem) => problem.split(' ')[0])).toEqual([
      'misshapen',
      'missing',
      'unexpected',
    ]);
    expect((await error(dir)).message).toMatch(/made for the base model "org\/other"/);
  });

  it('no LoRA matrices, although the configuration has targets', async () => {
    const { problems } = await error(await edited((tensors) => tensors.clear()));
    expect(problems).toHaveLength(8);
    expect(problems[0]).toMatch(
      /^missing LoRA of "language_model\.model\.decoder\.layers\.0\.self_attn\.k_proj"/,
    );
  });

  it('one of two matrices, an unknown name, modules_to_save without tensors', async () => {
    const dir = await edited(
      (tensors) => {
        tensors.delete(`${PREFIX}.q_proj.lora_B.weight`);
        tensors.set(`${PREFIX}.q_proj.lora_C.weight`, [1]);
      },
      { modules_to_save: ['language_projection'] },
    );
    expect((await error(dir)).problems).toEqual([
      `unexpected "${PREFIX}.q_proj.lora_C.weight" [1]`,
      `missing "${PREFIX}.q_proj.lora_B.weight"`,
      'missing all tensors of modules_to_save "language_projection"',
    ]);
  });

  it('a saved module with a missing tensor', async () => {
    const dir = await edited(
      (tensors) => tensors.set('base_model.model.language_projection.weight', [16, 12]),
      {
        modules_to_save: ['language_projection'],
      },
    );
    expect((await error(dir)).problems).toEqual([
      'missing "language_projection.bias" of modules_to_save "language_projection"',
    ]);
  });

  it('a missing extra file, truncated weights, a bad configuration, no folder', async () => {
    expect((await error(await edited(() => {}, { extra_trainables: 'x' }))).message).toMatch(
      /extra_trainables.safetensors: expected/,
    );
    const cut = await edited(() => {});
    await writeFile(
      join(cut, 'adapter_model.safetensors'),
      (await readFile(fixture('adapter/adapter_model.safetensors'))).subarray(0, 3000),
    );
    expect((await error(cut)).message).toMatch(/truncated/);
    const text = await edited(() => {});
    await writeFile(join(text, 'adapter_config.json'), '{');
    expect((await error(text)).message).toMatch(/adapter_config.json: expected a PEFT adapter configuration/);
    expect((await error(freshPath())).message).toMatch(/found no such folder/);
  });

  it("PEFT's default targets include T5's projections; a target without a match is allowed", async () => {
    const dir = await edited(() => {}, {
      target_modules: ['q', 'v', 'q_proj', 'k_proj', 'v_proj', 'out_proj'],
    });
    expect(loraParts(applyAdapter(base, await loadAdapter(dir))).size).toBe(8);
  });

  it('a tree with an adapter is refused; after withoutLora it works', async () => {
    const adapter = await loadAdapter(fixture('adapter'));
    const tree = applyAdapter(base, adapter);
    expect(() => applyAdapter(tree, adapter)).toThrow(/already has an adapter/);
    expect(await contents(applyAdapter(withoutLora(tree), adapter))).toEqual(await contents(tree));
  });
});

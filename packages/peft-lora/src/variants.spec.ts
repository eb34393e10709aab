/** Every option that changes results or files: PEFT's files are preserved, and invariants hold. */
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { add, flatten, isTrainable, linear, nest, scale, tensor } from '@blip2/nn';
import type { Linear, Tensor } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { openWeights } from '@blip2/weights/node';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { adapterSet, addAdapter, setAdapter } from './adapter-set';
import { applyAdapter } from './apply';
import { loraConfig } from './config';
import type { LoraConfig } from './config';
import type { Adapter } from './adapter';
import { loadAdapter, saveAdapter } from './adapter-folder';
import { addLora, loraDelta, loraParts, mergeLora, safeMergeLora, unmergeLora, withoutLora } from './lora';
import { applyPreset, countPreset, trainable } from './presets';
import { BASE, baseTree, fixture, random, readJson, settings, valuesOf } from '../spec/fixtures';
import { weightedAdapter } from './weighted';

const [{ tensor: EMBEDDINGS, alias: HEAD }] = BASE.ties;

let folder: string;
let base: object;
beforeAll(async () => {
  await useBackend('cpu');
  folder = await mkdtemp(join(tmpdir(), 'variants-'));
  base = await baseTree();
});
afterAll(() => rm(folder, { recursive: true }));
let cases = 0;
const freshPath = () => join(folder, `case-${cases++}`);

const VARIANTS = await readdir(fixture('variants'));

async function tensorsIn(dir: string): Promise<Map<string, { shape: number[]; values: number[] }>> {
  const reader = await openWeights(join(dir, 'adapter_model.safetensors'));
  const found = new Map<string, { shape: number[]; values: number[] }>();
  for (const { name, shape } of reader.entries.values())
    found.set(name, { shape, values: [...(await reader.readFloat32(name))] });
  await reader.close();
  return found;
}

/** A file's bytes; README.md has the folder's path in it, which is taken out. */
async function bytesOf(folder: string, file: string): Promise<Buffer> {
  const bytes = await readFile(join(folder, file));
  return file === 'README.md' ? Buffer.from(bytes.toString().replaceAll(folder, 'FOLDER')) : bytes;
}

describe('an adapter by PEFT, read and saved again', () => {
  it.each(VARIANTS)('%s: the same fields, names and values', async (name) => {
    const adapter = await loadAdapter(fixture(`variants/${name}`));
    const dir = freshPath();
    await saveAdapter(
      dir,
      applyAdapter(base, adapter, { trainable: true, ...BASE }),
      adapter.config,
      BASE.ties,
    );
    const theirs = await readJson(fixture(`variants/${name}/adapter_config.json`));
    expect(await readJson(join(dir, 'adapter_config.json'))).toEqual(settings(theirs));
    const [ours, wanted] = [await tensorsIn(dir), await tensorsIn(fixture(`variants/${name}`))];
    expect([...ours.keys()].sort()).toEqual([...wanted.keys()].sort());
    for (const [key, value] of wanted) expect(ours.get(key), key).toEqual(value);
  });

  it.each(VARIANTS)('%s: save → load → save gives the same bytes', async (name) => {
    const adapter = await loadAdapter(fixture(`variants/${name}`));
    const [first, second] = [freshPath(), freshPath()];
    await saveAdapter(
      first,
      applyAdapter(base, adapter, { trainable: true, ...BASE }),
      adapter.config,
      BASE.ties,
    );
    const again = await loadAdapter(first);
    await saveAdapter(second, applyAdapter(base, again, BASE), again.config, BASE.ties); // also from frozen tensors
    for (const file of ['adapter_config.json', 'adapter_model.safetensors', 'README.md'])
      expect(await bytesOf(second, file)).toEqual(await bytesOf(first, file));
  });

  it.each(VARIANTS)('%s: a new adapter trains the same number of values', async (name) => {
    const { config, lora, tensors } = await loadAdapter(fixture(`variants/${name}`));
    // PEFT writes "all-linear" as a list that includes excluded modules; addLora requires a match for each.
    if (name === 'all_linear') config.target_modules = 'all-linear';
    const { tree } = addLora(base, config, 1, BASE.ties);
    const table = [...flatten(base)].map(([leaf, { shape }]): [string, number[]] => [leaf, shape]);
    const count = countPreset(table, { lora: config, patterns: [] }, {}, BASE);
    const sizes = (values: Iterable<{ data: ArrayLike<number> }>) =>
      [...values].reduce((sum, { data }) => sum + data.length, 0);
    const matrices = [...lora.values()].flatMap((one) => Object.values(one) as { data: Float32Array }[]);
    const stored = name === 'head_target' ? 0 : sizes(tensors.values()); // that weight is the base's
    expect(count.trainable).toBe(sizes(matrices) + stored);
    const ours = [...trainable(tree).values()];
    expect(ours.reduce((sum, { size }) => sum + size, 0)).toBe(count.trainable);
    expect(new Set([...flatten(tree).values()]).size).toBe(new Set(ours).size + frozen(tree).length);
    expect([...frozen(tree), ...ours].reduce((sum, { size }) => sum + size, 0)).toBe(count.all);
  });
});

const frozen = (tree: object) => [...new Set(flatten(tree).values())].filter((leaf) => !isTrainable(leaf));

/** A model of one Linear, and random options of an adapter. */
const small = (width: number, out: number, seed: number): { proj: Linear; other: Linear } => ({
  proj: { weight: random(seed, out, width), bias: random(seed + 1, out) } as Linear,
  other: { weight: random(seed + 2, out, width), bias: random(seed + 3, out) } as Linear,
});

const options = fc.record({
  r: fc.constantFrom(2, 4, 6),
  lora_alpha: fc.integer({ min: 1, max: 16 }),
  use_rslora: fc.boolean(),
  kind: fc.constantFrom('plain', 'use_dora', 'lora_bias'),
  init_lora_weights: fc.constantFrom(true, 'gaussian', 'orthogonal') as fc.Arbitrary<
    LoraConfig['init_lora_weights']
  >,
  bias: fc.constantFrom('none', 'all', 'lora_only') as fc.Arbitrary<LoraConfig['bias']>,
});
const configOf = ({ kind, ...given }: { kind: string } & Partial<LoraConfig>): Partial<LoraConfig> => ({
  ...given,
  target_modules: ['proj'],
  ...(kind !== 'plain' && { [kind]: true }),
  ...(kind === 'lora_bias' && { init_lora_weights: true }),
});

/** Changes every Variable by about 0.1, in place of training. */
function move(tree: object): void {
  let seed = 50;
  for (const leaf of trainable(tree).values()) {
    const step = random(seed++, ...leaf.shape);
    leaf.assign(add(leaf, scale(step, 0.1)));
  }
}

const relative = (a: readonly number[], b: readonly number[]) => {
  const size = Math.max(1e-9, ...b.map(Math.abs));
  return Math.max(...a.map((value, i) => Math.abs(value - b[i]!))) / size;
};

describe('invariants', () => {
  const sizes = fc.record({
    width: fc.integer({ min: 1, max: 9 }),
    out: fc.integer({ min: 1, max: 9 }),
    seed: fc.nat(1000),
  });
  const property = (
    check: (config: Partial<LoraConfig>, size: { width: number; out: number; seed: number }) => Promise<void>,
  ) =>
    fc.assert(
      fc.asyncProperty(options, sizes, (given, size) => check(configOf(given), size)),
      { numRuns: 40 },
    );

  it('a fresh adapter changes nothing', () =>
    property(async (config, { width, out, seed }) => {
      const plain = small(width, out, seed);
      const { tree } = addLora(plain, config, seed);
      const x = random(7, 3, width);
      const [ours, theirs] = [await valuesOf(linear(tree.proj, x)), await valuesOf(linear(plain.proj, x))];
      // With orthogonal initialisation B·A is zero only up to rounding.
      if (config.init_lora_weights === 'orthogonal') expect(relative(ours, theirs)).toBeLessThan(1e-5);
      else expect(ours).toEqual(theirs);
    }));

  it('only tensors that the configuration trains are Variables, and removing LoRA gives the base', () =>
    property(async (config, { width, out, seed }) => {
      const plain = small(width, out, seed);
      const before = await Promise.all([...flatten(plain).values()].map(valuesOf));
      const { tree } = addLora(plain, config, seed);
      const own = ['lora_A.weight', 'lora_B.weight'];
      if (config.lora_bias) own.push('lora_B.bias');
      if (config.use_dora) own.push('lora_magnitude_vector');
      const biases = { none: [], lora_only: ['proj.bias'], all: ['proj.bias', 'other.bias'] }[config.bias!];
      expect([...trainable(tree).keys()].sort()).toEqual(
        [...own.map((name) => `proj.lora.${name}`), ...biases].sort(),
      );
      move(tree);
      expect(await Promise.all([...flatten(plain).values()].map(valuesOf))).toEqual(before);
      if (config.bias === 'none') expect(flatten(withoutLora(tree))).toEqual(flatten(plain));
    }));

  it('merged outputs equal unmerged ones, and unmerging gives the base', () =>
    property(async (config, { width, out, seed }) => {
      const { tree } = addLora(small(width, out, seed), config, seed);
      move(tree);
      const merged = await safeMergeLora(tree);
      expect(flatten(merged).size).toBe(4);
      const x = random(7, 3, width);
      const [ours, theirs] = [await valuesOf(linear(merged.proj, x)), await valuesOf(linear(tree.proj, x))];
      expect(relative(ours, theirs)).toBeLessThan(2e-5);
      if (config.use_dora) {
        expect(() => unmergeLora(merged, tree)).toThrow(/merged DoRA cannot be subtracted/);
        return;
      }
      const back = unmergeLora(merged, tree);
      for (const leaf of ['weight', 'bias'] as const)
        expect(relative(await valuesOf(back.proj[leaf]!), await valuesOf(tree.proj[leaf]!))).toBeLessThan(
          1e-5,
        );
    }));

  it('save → load → save gives the same bytes for any configuration', () =>
    property(async (config, { width, out, seed }) => {
      const { tree } = addLora(small(width, out, seed), config, seed);
      move(tree);
      const [first, second] = [freshPath(), freshPath()];
      await saveAdapter(first, tree, config);
      const adapter = await loadAdapter(first);
      await saveAdapter(
        second,
        applyAdapter(small(width, out, seed), adapter, { trainable: true }),
        adapter.config,
      );
      for (const file of await readdir(first))
        expect(await bytesOf(second, file), file).toEqual(await bytesOf(first, file));
    }));
});

describe('DoRA', () => {
  it('initialises the magnitudes with the lengths of the rows', async () => {
    const plain = small(5, 3, 2);
    const { tree } = addLora(plain, { target_modules: ['proj'], use_dora: true }, 0);
    const weight = await valuesOf(plain.proj.weight);
    const lengths = [0, 1, 2].map((i) => Math.hypot(...weight.slice(5 * i, 5 * i + 5)));
    expect(relative(await valuesOf(tree.proj.lora!.lora_magnitude_vector!), lengths)).toBeLessThan(1e-6);
  });

  it('merged rows have the lengths of the magnitudes', async () => {
    const { tree } = addLora(small(5, 3, 2), { target_modules: ['proj'], use_dora: true, r: 2 }, 0);
    move(tree);
    const weight = await valuesOf(mergeLora(tree).proj.weight);
    const lengths = [0, 1, 2].map((i) => Math.hypot(...weight.slice(5 * i, 5 * i + 5)));
    expect(relative(lengths, await valuesOf(tree.proj.lora!.lora_magnitude_vector!))).toBeLessThan(1e-6);
  });
});

describe('initialisation', () => {
  it('orthogonal: A and B are random, B·A is zero', async () => {
    const { tree } = addLora(
      small(40, 30, 2),
      { target_modules: ['proj'], r: 6, init_lora_weights: 'orthogonal' },
      1,
    );
    const part = loraParts(tree).get('proj')!;
    const size = async (x: Tensor) => {
      const all = await valuesOf(x);
      return Math.sqrt(all.reduce((sum, v) => sum + v * v, 0) / all.length);
    };
    // X·Q_even / 10: each element is a sum of three normals times entries of an orthonormal row, of variance 1/200.
    expect(await size(part.lora_A.weight)).toBeGreaterThan(0.05);
    expect(await size(part.lora_A.weight)).toBeLessThan(0.09);
    expect(await size(part.lora_B.weight)).toBeGreaterThan(0.05);
    expect(await size(loraDelta(part))).toBeLessThan(1e-7);
  });
});

describe('safe merge', () => {
  it('names the modules whose merged values are not finite', async () => {
    const { tree } = addLora(small(3, 2, 1), { target_modules: ['proj', 'other'], r: 1 }, 0);
    const B = trainable(tree).get('other.lora.lora_B.weight')!;
    B.assign(tensor([NaN, 1], [2, 1]));
    await expect(safeMergeLora(tree)).rejects.toThrow(
      /expected finite values, found NaN or infinity; the adapter seems to be broken:\n {2}other\.weight$/,
    );
    B.assign(tensor([Infinity, 1], [2, 1]));
    await expect(safeMergeLora(tree)).rejects.toThrow(/other\.weight/);
    B.assign(tensor([0, 1], [2, 1]));
    expect(Object.keys(await safeMergeLora(tree))).toEqual(['proj', 'other']);
  });

  it('refuses to merge a bias of lora_B into a Linear without bias', () => {
    const plain = { proj: { weight: random(1, 2, 3) } };
    const { tree } = addLora(plain, { target_modules: ['proj'], lora_bias: true }, 0);
    expect(() => mergeLora(tree)).toThrow(/proj: expected a Linear with a bias, because lora_B has one/);
  });
});

describe('whole modules and biases', () => {
  it('trained embeddings of a tied model are also stored as the head, because PEFT unties them', async () => {
    const { params: tree } = applyPreset(base, {
      lora: { target_modules: ['q_proj'], r: 2 },
      patterns: ['embed_tokens'],
    });
    expect(flatten(tree).has(HEAD)).toBe(false);
    const dir = freshPath();
    await saveAdapter(dir, tree, { target_modules: ['q_proj'], r: 2 }, BASE.ties);
    const { config, tensors } = await loadAdapter(dir);
    expect(config.modules_to_save?.map((module) => module.split('.').at(-1)).sort()).toEqual([
      'embed_tokens',
      'lm_head',
    ]);
    const [head, embeddings] = [...tensors.values()];
    expect(head!.data).toEqual(embeddings!.data);
  });

  it('saving the embeddings unties them, saving a module above them does not', () => {
    const headOf = (modules_to_save: string[]) => {
      const { tree } = addLora(base, { target_modules: ['query'], modules_to_save }, 0, BASE.ties);
      return flatten(tree).get(HEAD);
    };
    expect(headOf(['embed_tokens'])).toBe(flatten(base).get(EMBEDDINGS));
    expect(headOf(['embed_tokens', 'fc1'])).toBe(flatten(base).get(EMBEDDINGS));
    expect(headOf(['decoder'])).toBeUndefined();
    expect(headOf(['language_projection'])).toBeUndefined();
  });

  it('bias "all" with whole modules is refused, and so are names without a match and lists of layers', () => {
    const make = (given: Partial<LoraConfig>) => () =>
      addLora(base, { target_modules: ['q_proj'], ...given }, 0);
    expect(make({ bias: 'all', modules_to_save: ['language_projection'] })).toThrow(
      /bias: expected "none" or "lora_only"/,
    );
    expect(make({ modules_to_save: ['projektion'] })).toThrow(/"projektion" matches no module/);
    expect(make({ modules_to_save: ['decoder.layers'] })).toThrow(/is a list of layers/);
  });

  it('missing biases, magnitudes and lora_bias are named', async () => {
    const config = { target_modules: ['q_proj'], r: 2, bias: 'lora_only' as const };
    const dir = freshPath();
    await saveAdapter(dir, addLora(base, config, 0).tree, config);
    const adapter = await loadAdapter(dir);
    adapter.tensors.delete('language_model.model.decoder.layers.0.self_attn.q_proj.bias');
    expect(() => applyAdapter(base, adapter)).toThrow(
      /missing "language_model.model.decoder.layers.0.self_attn.q_proj.bias" of bias "lora_only"/,
    );
    const dora = await loadAdapter(fixture('variants/dora'));
    dora.lora.values().next().value!.magnitude!.shape = [3];
    expect(() => applyAdapter(base, dora)).toThrow(
      /misshapen ".*\.lora_magnitude_vector": expected \[24\], found \[3\]/,
    );
  });
});

describe('combinations', () => {
  const adapter = async (name: string) => loadAdapter(fixture(`variants/${name}`));
  const deltas = async ({ config, lora }: Adapter) => {
    const tree = applyAdapter(base, { where: '', config, lora, tensors: new Map() });
    const entries = [...loraParts(tree)].map(
      async ([m, part]) => [m, await valuesOf(loraDelta(part))] as const,
    );
    return new Map(await Promise.all(entries));
  };

  it('cat and full-rank svd are exact sums', async () => {
    const [first, second] = [await adapter('first'), await adapter('second')];
    const [a, b] = [await deltas(first), await deltas(second)];
    for (const given of [
      { weights: [0.5, -2], combination_type: 'cat' as const },
      { weights: [0.5, -2], svd_rank: 4 },
    ]) {
      const both = await deltas(weightedAdapter([first, second], given));
      expect([...both.keys()].sort()).toEqual([...new Set([...a.keys(), ...b.keys()])].sort());
      for (const [module, sum] of both) {
        const wanted = sum.map((_, i) => 0.5 * (a.get(module)?.[i] ?? 0) - 2 * (b.get(module)?.[i] ?? 0));
        expect(relative(sum, wanted)).toBeLessThan(1e-6);
      }
    }
  });

  it('a combination can be saved and loaded', async () => {
    const mixed = weightedAdapter([await adapter('first'), await adapter('second')], {
      weights: [1, 1],
      combination_type: 'cat',
    });
    expect(mixed.config).toMatchObject({ r: 4, lora_alpha: 4 });
    expect([...mixed.config.target_modules].sort()).toEqual(['fc2', 'q_proj', 'v_proj']);
    const dir = freshPath();
    await saveAdapter(dir, applyAdapter(base, mixed), mixed.config);
    expect(await deltas(await loadAdapter(dir))).toEqual(await deltas(mixed));
  });

  it.each<[string, string, object, RegExp]>([
    [
      'an unknown type',
      'second',
      { weights: [1, 1], combination_type: 'ties' },
      /expected linear, cat or svd, found "ties"/,
    ],
    ['a weight too few', 'second', { weights: [1] }, /weights: expected 2 numbers, found \[1\]/],
    ['DoRA', 'dora', { weights: [1, 1] }, /variants.dora: expected plain LoRA, found DoRA/],
    [
      'whole modules',
      'save_head',
      { weights: [1, 1] },
      /found whole tensors \(language_model\.lm_head\.weight/,
    ],
    ['ranks that differ', 'dora4', { weights: [1, 1], combination_type: 'linear' }, /one rank, found 2, 4/],
    [
      'other layers',
      'layers',
      { weights: [1, 1] },
      /layers_to_transform: expected that of .*, null, found \[1\]/,
    ],
    ['targets of two kinds', 'all', { weights: [1, 1] }, /target_modules of one kind/],
  ])('%s is refused', async (_, other, given, message) => {
    const first = await adapter('first');
    const second =
      other === 'dora4'
        ? { ...first, config: loraConfig({ ...first.config, r: 4 }) }
        : other === 'all'
          ? { ...first, config: loraConfig({ ...first.config, target_modules: 'all-linear' }) }
          : await adapter(other);
    expect(() => weightedAdapter([first, second], given as never)).toThrow(message);
  });

  it('a set refuses duplicate and unknown names', async () => {
    const set = addAdapter(adapterSet(base), 'one', await adapter('first'));
    expect(() => addAdapter(set, 'one', set.adapters.get('one')!)).toThrow(
      /there is an adapter "one" already/,
    );
    expect(() => setAdapter(set, 'two')).toThrow(/expected one of the adapters one, found "two"/);
    expect(() => adapterSet(setAdapter(set, 'one').tree)).toThrow(/already has an adapter/);
  });
});

it('a tree of nested lists is preserved', () => {
  const tree = nest([['layers.0.proj.weight', random(1, 2, 2)]]) as object;
  expect(loraParts(addLora(tree, { target_modules: ['proj'], use_dora: true }, 0).tree).size).toBe(1);
});

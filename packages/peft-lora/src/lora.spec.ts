import { countParameters, flatten, isTrainable, linear, memory } from '@blip2/nn';
import type { Linear, Tensor } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { AdapterError } from './errors';
import { addLora, loraParts, mergeLora, withoutLora } from './lora';
import { baseTree, random, valuesOf } from '../spec/fixtures';

beforeAll(() => useBackend('cpu'));

interface Toy {
  layers: { proj: Linear; norm: { weight: Tensor; bias: Tensor } }[];
  eps: number;
}
const toy = (width: number, out: number, seed: number): Toy => ({
  layers: [0, 1].map((i) => ({
    proj: { weight: random(seed + i, out, width), bias: random(seed + 9, out) } as Linear,
    norm: { weight: random(3, width), bias: random(4, width) },
  })),
  eps: 1e-5,
});
const outputs = (tree: Toy, x: Tensor) =>
  Promise.all(tree.layers.map(({ proj }) => valuesOf(linear(proj, x))));

const sizes = fc.record({
  width: fc.integer({ min: 1, max: 9 }),
  out: fc.integer({ min: 1, max: 9 }),
  r: fc.integer({ min: 1, max: 5 }),
  lora_alpha: fc.integer({ min: 1, max: 32 }),
  use_rslora: fc.boolean(),
  seed: fc.nat(1000),
});

describe('addLora', () => {
  it('a fresh adapter changes nothing', async () => {
    await fc.assert(
      fc.asyncProperty(sizes, async ({ width, out, seed, ...lora }) => {
        const base = toy(width, out, seed);
        const { tree, modules } = addLora(base, { ...lora, target_modules: ['proj'] }, seed);
        expect(modules).toEqual(['layers.0.proj', 'layers.1.proj']);
        const x = random(7, 3, width);
        expect(await outputs(tree, x)).toEqual(await outputs(base, x));
        expect(loraParts(base).size).toBe(0);
      }),
      { numRuns: 25 },
    );
  });

  it('merged and unmerged give the same outputs, for B that is not zero', async () => {
    await fc.assert(
      fc.asyncProperty(sizes, async ({ width, out, seed, ...lora }) => {
        const options = { ...lora, target_modules: ['proj'], init_lora_weights: false as const };
        const { tree } = addLora(toy(width, out, seed), options, seed);
        const merged = mergeLora(tree);
        expect([...flatten(merged).keys()]).toEqual([...flatten(toy(width, out, seed)).keys()]);
        const x = random(7, 3, width);
        const [a, b, base] = [
          await outputs(tree, x),
          await outputs(merged, x),
          await outputs(withoutLora(tree), x),
        ];
        const scale = Math.max(...a.flat().map(Math.abs), 1) * (lora.lora_alpha + 1);
        a.flat().forEach((value, i) => expect(Math.abs(value - b.flat()[i]!)).toBeLessThan(1e-5 * scale));
        expect(a).not.toEqual(base);
      }),
      { numRuns: 25 },
    );
  });

  it('only the adapter trains; A is uniform in ±1/√in and depends on seed and name', async () => {
    const make = async (seed: number) => {
      const { tree } = addLora(toy(64, 8, 1), { r: 16, target_modules: ['proj'] }, seed);
      const leaves = flatten(tree);
      expect([...leaves].filter(([, leaf]) => isTrainable(leaf)).map(([name]) => name)).toEqual([
        'layers.0.proj.lora.lora_A.weight',
        'layers.0.proj.lora.lora_B.weight',
        'layers.1.proj.lora.lora_A.weight',
        'layers.1.proj.lora.lora_B.weight',
      ]);
      return Promise.all([0, 1].map((i) => valuesOf(leaves.get(`layers.${i}.proj.lora.lora_A.weight`)!)));
    };
    const [first, again, other] = [await make(5), await make(5), await make(6)];
    expect(again).toEqual(first);
    expect(other[0]).not.toEqual(first[0]);
    expect(first[1]).not.toEqual(first[0]);
    const A = first[0]!;
    const bound = 1 / Math.sqrt(64);
    expect(Math.max(...A)).toBeLessThanOrEqual(bound);
    expect(Math.max(...A)).toBeGreaterThan(0.97 * bound);
    expect(Math.min(...A)).toBeLessThan(-0.97 * bound);
    expect(Math.abs(A.reduce((sum, a) => sum + a, 0) / A.length)).toBeLessThan(0.1 * bound);
  });

  it('gaussian: deviation 1/r', async () => {
    const { tree } = addLora(
      toy(512, 2, 1),
      { r: 8, target_modules: ['proj'], init_lora_weights: 'gaussian' },
      0,
    );
    const A = await valuesOf(flatten(tree).get('layers.0.proj.lora.lora_A.weight')!);
    expect(Math.sqrt(A.reduce((sum, a) => sum + a * a, 0) / A.length) * 8).toBeCloseTo(1, 1);
  });

  it('fields that are not tensors are kept, and lists stay lists', () => {
    const { tree } = addLora(
      toy(2, 2, 0),
      { target_modules: ['proj'], lora_dropout: 0.25, r: 2, lora_alpha: 3 },
      0,
    );
    expect(tree.eps).toBe(1e-5);
    expect(Array.isArray(tree.layers)).toBe(true);
    expect(tree.layers[0]!.proj.lora).toMatchObject({ scaling: 1.5, dropout: 0.25 });
  });

  it('a second adapter is refused', () => {
    const { tree } = addLora(toy(2, 2, 0), { target_modules: ['proj'] }, 0);
    expect(() => addLora(tree, { target_modules: ['proj'] }, 0)).toThrow(AdapterError);
    expect(() => addLora(tree, { target_modules: ['proj'] }, 0)).toThrow(
      /layers.0.proj already has an adapter/,
    );
  });

  it('leaks no tensors: adding makes 2 per module, merging 1', async () => {
    const base = await baseTree();
    const before = memory().numTensors;
    const { tree, modules } = addLora(base, { target_modules: 'all-linear' }, 0);
    expect(memory().numTensors - before).toBe(2 * modules.length);
    expect(countParameters(withoutLora(tree))).toBe(countParameters(base));
    mergeLora(tree);
    expect(memory().numTensors - before).toBe(3 * modules.length);
  });
});

import { countParameters, flatten, isTrainable, memory } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { beforeAll, describe, expect, it } from 'vitest';
import { AdapterError } from './errors';
import { applyPreset, countPreset, presetLora, presets, trainable, trainableLine } from './presets';
import type { PresetName } from './presets';
import { BASE, baseTree, opt27bTable, valuesOf } from '../spec/fixtures';

beforeAll(() => useBackend('cpu'));
const names = Object.keys(presets) as PresetName[];

describe('counts on blip2-opt-2.7b', () => {
  const TOTAL = 3_744_761_856;

  it.each<[PresetName, number, number]>([
    ['lora', 10_485_760, TOTAL + 10_485_760],
    ['qformer', 105_137_664, TOTAL],
    ['qformer-projection', 107_130_880, TOTAL],
    ['lora+qformer', 117_616_640, TOTAL + 10_485_760],
    ['full', TOTAL, TOTAL],
  ])('%s trains %i', (preset, expected, all) => {
    expect(countPreset(opt27bTable(), preset, {}, BASE)).toMatchObject({ trainable: expected, all });
  });

  it("lora prints PEFT's line", () => {
    const { trainable, all, modules } = countPreset(opt27bTable(), 'lora', {}, BASE);
    expect(trainableLine(trainable, all)).toBe(
      'trainable params: 10,485,760 || all params: 3,755,247,616 || trainable%: 0.2792',
    );
    expect(modules).toHaveLength(128);
  });

  it('overrides change the count: q and v with r 8', () => {
    expect(countPreset(opt27bTable(), 'lora', { r: 8, target_modules: ['q_proj', 'v_proj'] }).trainable).toBe(
      2_621_440,
    );
    expect(presetLora('lora', { r: 4, lora_alpha: undefined })).toMatchObject({
      r: 4,
      lora_alpha: 32,
      lora_dropout: 0.05,
    });
    expect(presetLora('qformer', { r: 4 })).toBeUndefined();
  });
});

describe('trainableLine', () => {
  it("rounds like Python's .4f, also on exact ties", () => {
    // python: f"{100 * t / a:.4f}"
    expect(trainableLine(1, 3200)).toMatch(/ 0.0312$/);
    expect(trainableLine(3, 3200)).toMatch(/ 0.0938$/);
    expect(trainableLine(1, 3)).toMatch(/ 33.3333$/);
    expect(trainableLine(2, 3)).toMatch(/ 66.6667$/);
    expect(trainableLine(999, 999)).toBe('trainable params: 999 || all params: 999 || trainable%: 100.0000');
  });
});

describe('applyPreset', () => {
  it.each(names)('%s: Variables equal the count of countPreset; values are kept', async (preset) => {
    const base = await baseTree();
    const leaves = flatten(base);
    const table = [...leaves].map(([name, { shape }]): [string, number[]] => [name, shape]);
    const { params: tree, adapter, trainables: trains } = applyPreset(base, preset, { r: 2 }, 1, BASE);
    const count = countPreset(table, preset, { r: 2 }, BASE);
    expect(adapter).toEqual(presetLora(preset, { r: 2 }, BASE));
    expect([...trainable(tree)]).toEqual([...trains]);
    expect(countParameters(trains.values())).toBe(count.trainable);
    expect(countParameters(tree)).toBe(count.all);
    const ofBase = [...trains.keys()].filter((name) => !name.includes('.lora.'));
    expect(ofBase).toEqual(count.names);
    for (const name of ofBase)
      expect(await valuesOf(trains.get(name)!)).toEqual(await valuesOf(leaves.get(name)!));
    expect([...leaves.values()].some(isTrainable)).toBe(false);
  });

  it('an unknown preset is refused with a list of the known ones', async () => {
    const base = await baseTree();
    expect(() => applyPreset(base, 'lorra' as PresetName)).toThrow(AdapterError);
    expect(() => applyPreset(base, 'lorra' as PresetName)).toThrow(
      'preset: expected one of lora, qformer, qformer-projection, lora+qformer, full, found "lorra"',
    );
  });

  it('a pattern or target that matches nothing is an error and makes no Variable', async () => {
    const base = await baseTree();
    const before = memory().numTensors;
    expect(() => applyPreset(base, { patterns: ['qfromer'] })).toThrow(/"qfromer" matches none/);
    expect(() => applyPreset(base, { lora: { target_modules: ['q_prj'] }, patterns: ['qformer'] })).toThrow(
      /similar names: q_proj/,
    );
    expect(memory().numTensors).toBe(before);
  });

  it('a tree with Variables is refused', async () => {
    const { params } = applyPreset(await baseTree(), 'qformer');
    expect(() => applyPreset(params, 'lora')).toThrow(
      /expected a tree of frozen tensors, found 44 Variables/,
    );
  });
});

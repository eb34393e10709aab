import { beforeAll, describe, expect, it } from 'vitest';
import {
  countParameters,
  flatten,
  matchNames,
  nest,
  replaceLeaves,
  scale,
  tensor,
  trainableLeaves,
  variable,
} from './index';
import { useBackend } from './node';
import type { Tensor } from './index';

beforeAll(() => useBackend('cpu'));

const tree = () => ({
  layers: [
    { fc: { weight: tensor([1, 2], [2]), scaling: 2 } },
    { fc: { weight: variable(tensor([3, 4, 5], [3])), scaling: 2 } },
  ],
  norm: { weight: tensor([1], [1]) },
});

describe('parameter trees', () => {
  it('flatten names every tensor by its path, and nest is the inverse', () => {
    const flat = flatten(tree());
    expect([...flat.keys()]).toEqual(['layers.0.fc.weight', 'layers.1.fc.weight', 'norm.weight']);
    const nested = nest(flat) as ReturnType<typeof tree>;
    expect(Array.isArray(nested.layers)).toBe(true);
    expect([...flatten(nested)]).toEqual([...flat]);
    expect(() =>
      nest([
        ['a', tensor([1], [1])],
        ['a.b', tensor([2], [1])],
      ]),
    ).toThrow(/"a\.b" lies inside "a", which is a tensor/);
    expect(() =>
      nest([
        ['a.b', 2],
        ['a', 1],
      ]),
    ).toThrow(/both a tensor and the folder/);
  });

  it('nest keeps records with gaps between the numbers', () => {
    expect(
      nest([
        ['a.0', 1],
        ['a.2', 2],
      ]),
    ).toEqual({ a: { 0: 1, 2: 2 } });
    expect(
      nest([
        ['a.0', 1],
        ['a.1', 2],
      ]),
    ).toEqual({ a: [1, 2] });
  });

  it('counts a shared tensor once', () => {
    const shared = tensor([1, 2, 3], [3]);
    expect(countParameters({ a: shared, b: shared, c: tensor([1], [1]) })).toBe(4);
    expect(countParameters([shared])).toBe(3);
    expect(countParameters(flatten(tree()).values())).toBe(6);
  });

  it('recognises trainable leaves, and replaces leaves but not settings', () => {
    expect([...trainableLeaves(tree()).keys()]).toEqual(['layers.1.fc.weight']);
    const doubled = replaceLeaves(tree(), (_name, x: Tensor) => scale(x, 2));
    expect([...doubled.layers[0].fc.weight.dataSync()]).toEqual([2, 4]);
    expect(doubled.layers[1].fc.scaling).toBe(2);
  });

  it('matches patterns, and refuses one that matches nothing with the nearest names', () => {
    const names = ['qformer.layernorm.weight', 'query_tokens', 'language_projection.weight'];
    expect(matchNames(names, ['projection', '^query'])).toEqual([
      'query_tokens',
      'language_projection.weight',
    ]);
    expect(() => matchNames(names, ['qfromer'])).toThrow(/"qfromer" matches none of 3.*qformer\.layernorm/);
  });
});

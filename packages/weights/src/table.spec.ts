import { describe, expect, it } from 'vitest';
import { WeightsError } from './errors';
import type { TensorEntry } from './header';
import { checkTable } from './table';
import type { WeightTable } from './table';

const stored = (shapes: Record<string, number[]>) => ({
  path: 'base',
  entries: new Map(
    Object.entries(shapes).map(([name, shape]): [string, TensorEntry] => [
      name,
      { name, dtype: 'F32', shape, file: 'base/model.safetensors', begin: 0, end: 0 },
    ]),
  ),
});
const embed = 'decoder.embed_tokens.weight';
const head = 'lm_head.weight';
const table: WeightTable = [
  ['query_tokens', [1, 4, 8]],
  [embed, [50, 8]],
];

describe('checkTable', () => {
  it('accepts an exact fit and returns the stored tensor of each name', () => {
    const served = checkTable(stored({ query_tokens: [1, 4, 8], [embed]: [50, 8] }), table);
    expect([...served].map(([name, entry]) => [name, entry.name])).toEqual([
      ['query_tokens', 'query_tokens'],
      [embed, embed],
    ]);
  });

  it('lists every missing, unexpected and misshapen tensor in one error', () => {
    const check = () => checkTable(stored({ query_tokens: [1, 5, 8], extra: [2], other: [] }), table);
    expect(check).toThrow(WeightsError);
    expect(check).toThrow(
      `base: 3 stored tensors do not fit the model's 2:
1 missing:
  "${embed}" [50, 8]
2 unexpected:
  "extra" [2] in base/model.safetensors
  "other" [] in base/model.safetensors
1 misshapen:
  "query_tokens": expected [1, 4, 8], found [1, 5, 8] in base/model.safetensors`,
    );
  });

  it('keeps a long list on one screen and complete in `problems`', () => {
    const long: WeightTable = Array.from({ length: 1000 }, (_, i) => [`layers.${i}.weight`, [1]]);
    try {
      checkTable(stored({ 'layers.0.bias': [1] }), long);
      expect.unreachable();
    } catch (error) {
      expect((error as WeightsError).message.split('\n').length).toBeLessThan(20);
      expect((error as WeightsError).message).toContain('… and 988 more');
      expect((error as WeightsError).problems).toHaveLength(1001);
    }
  });

  it.each<[string, Record<string, number[]>, string]>([
    ['the head alone', { [head]: [50, 8] }, head],
    ['the embedding alone', { [embed]: [50, 8] }, embed],
    ['both', { [head]: [50, 8], [embed]: [50, 8] }, embed],
  ])('tied weights may be stored as %s', (_, shapes, serving) => {
    const served = checkTable(stored({ query_tokens: [1, 4, 8], ...shapes }), table, {
      aliases: { [embed]: [head] },
    });
    expect(served.get(embed)!.name).toBe(serving);
  });

  it('an alias of a wrong shape is misshapen, even beside a right one', () => {
    const shapes = { query_tokens: [1, 4, 8], [embed]: [50, 8], [head]: [49, 8] };
    expect(() => checkTable(stored(shapes), table, { aliases: { [embed]: [head] } })).toThrow(
      /"lm_head.weight": expected \[50, 8\]/,
    );
  });

  it('ignores names by pattern, also by a sticky or global one', () => {
    const shapes = {
      query_tokens: [1, 4, 8],
      [embed]: [50, 8],
      'a.position_ids': [1],
      'b.position_ids': [1],
    };
    expect(() => checkTable(stored(shapes), table, { ignore: [/position_ids$/g] })).not.toThrow();
    expect(() => checkTable(stored(shapes), table, { ignore: [/^a\./] })).toThrow(
      /1 unexpected:\n {2}"b.position_ids"/,
    );
  });

  it('accepts a quantised weight by the shape of its numbers', () => {
    const reader = stored({ query_tokens: [1, 4, 8], [embed]: [50, 8] });
    const entry = reader.entries.get(embed)!;
    const scales = { ...entry, name: 'scales' };
    reader.entries.set(embed, { ...entry, dtype: 'I8', quantised: { kind: 'BNB8', scales } });
    expect(checkTable(reader, table).size).toBe(2);
    reader.entries.set(embed, { ...entry, dtype: 'I8', shape: [8, 50], quantised: { kind: 'BNB8', scales } });
    expect(() => checkTable(reader, table)).toThrow(/1 misshapen:\n.*expected \[50, 8\], found \[8, 50\]/);
    reader.entries.set(embed, { ...entry, dtype: 'I8' });
    expect(() => checkTable(reader, table)).toThrow(/1 weights are whole numbers \(I8\)/);
  });

  it('reports a missing tensor that the index lists', () => {
    const reader = {
      ...stored({ query_tokens: [1, 4, 8] }),
      unresolved: new Map([[embed, 'model-2.safetensors']]),
    };
    expect(() => checkTable(reader, table)).toThrow(
      /\[50, 8\] \(the index lists it in model-2.safetensors\)/,
    );
  });
});

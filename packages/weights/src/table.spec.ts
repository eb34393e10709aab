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

function errorOf(f: () => unknown): WeightsError {
  try {
    f();
  } catch (error) {
    return error as WeightsError;
  }
  throw new Error('expected an error');
}

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

  it.each<[string, Record<string, number[]>, string]>([
    [
      'nf4',
      {
        [`${embed}.absmax`]: [7],
        [`${embed}.quant_map`]: [16],
        [`${embed}.nested_absmax`]: [1],
        [`${embed}.nested_quant_map`]: [256],
        [`${embed}.quant_state.bitsandbytes__nf4`]: [90],
      },
      'bitsandbytes nf4 (1 tensor)',
    ],
    [
      'int8',
      { 'decoder.embed_tokens.SCB': [50], 'decoder.embed_tokens.weight_format': [] },
      'bitsandbytes int8 (1 tensor)',
    ],
  ])('names the encoding of quantised weights once, and not their scales (%s)', (_, companions, encoding) => {
    const check = (others: Record<string, number[]>) => () =>
      checkTable(stored({ [embed]: [200, 1], ...companions, ...others }), table);
    const sentence = `the weights are stored as ${encoding}, such as "${embed}", which is not supported: use the checkpoint in float32, float16 or bfloat16`;
    expect(errorOf(check({ query_tokens: [1, 4, 8] })).message).toBe(`base: ${sentence}`);
    // Other problems are listed beside the message; a companion's name counts only beside its weight.
    const both = errorOf(check({ 'other.absmax': [7] }));
    expect(both.message).toBe(`base: ${sentence}`);
    expect(both.problems.slice(1)).toEqual([
      'missing "query_tokens" [1, 4, 8]',
      'unexpected "other.absmax" [7] in base/model.safetensors',
    ]);
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

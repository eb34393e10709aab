import { fold, normal, rngKey } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Labelled } from './probe';
import { linearProbe, nearestRows } from './probe';

const PATTERN = '^(?<size>big|small) (?<colour>red|blue)(?: (?<shape>disc))?$';
const [SIZES, COLOURS, SHAPES] = [
  ['big', 'small'],
  ['red', 'blue'],
  ['', ' disc'],
];

beforeAll(async () => {
  await useBackend();
});

/** Rows of 12 noisy numbers in which the first three say size, colour and shape, unless `informative` is false. */
function examples(seed: number, rows: number, informative = true): Labelled {
  const cols = 12;
  const data = normal(fold(rngKey(seed), 'noise'), rows * cols);
  const references = Array.from({ length: rows }, (_, i) => {
    const bits = [i & 1, (i >> 1) & 1, (i >> 2) & 1];
    if (informative) bits.forEach((bit, at) => (data[i * cols + at] = 8 * bit + 0.5 * data[i * cols + at]));
    return [`${SIZES[bits[0]]} ${COLOURS[bits[1]]}${SHAPES[bits[2]]}`];
  });
  return { pixels: { data, rows, cols }, references };
}

describe('linearProbe', () => {
  it('reads parts that are linear in the pixels, absent groups included', async () => {
    const probe = await linearProbe(examples(1, 160), examples(2, 40), examples(3, 64), PATTERN);
    expect(probe.exact).toBe(1);
    expect(probe.parts).toEqual({ size: 1, colour: 1, shape: 1 });
    expect(probe.tuned).toBe(true);
  });

  it('is at chance on pixels that say nothing', async () => {
    const probe = await linearProbe(examples(1, 160, false), undefined, examples(3, 400, false), PATTERN);
    expect(probe.exact).toBeLessThan(0.25);
    expect(probe.parts.size).toBeGreaterThan(0.35);
    expect(probe.parts.size).toBeLessThan(0.65);
    expect(probe.tuned).toBe(false);
  });

  it('leaves out training captions that the pattern does not read, and counts such references as wrong', async () => {
    const [train, test] = [examples(1, 160), examples(3, 64)];
    train.references[0] = ['noise'];
    test.references[0] = ['noise'];
    const probe = await linearProbe(train, undefined, test, PATTERN);
    expect(probe.exact).toBe(63 / 64);
  });

  it('says which pattern reads nothing', async () => {
    await expect(linearProbe(examples(1, 8), undefined, examples(2, 8), '^(?<x>y)$')).rejects.toThrow(
      'parts_pattern: no training caption matches ^(?<x>y)$; the first one is "big red"',
    );
  });
});

describe('nearestRows', () => {
  it('finds the row at the smallest distance, not the largest product', async () => {
    const among = { data: Float32Array.of(0, 0, 10, 10, 3, 3), rows: 3, cols: 2 };
    const queries = { data: Float32Array.of(2, 2, 9, 9, 0, 1), rows: 3, cols: 2 };
    expect(await nearestRows(queries, among)).toEqual([2, 1, 0]);
  });
});

import { describe, expect, it } from 'vitest';
import { formatShare, formatTable, margin, sizeOf } from './results';
import type { ResultsTable } from './results';

const table: ResultsTable = {
  parts: ['subject', 'tone'],
  n: 672,
  rows: [
    { name: 'fine-tuned', kind: 'model', exact: 0.4754, parts: { subject: 0.778, tone: 1 } },
    { name: 'blank image', kind: 'control', exact: 0, parts: { subject: 0.1 }, note: 'white picture' },
  ],
};

describe('formatTable', () => {
  it('aligns names to the left, numbers to the right, and notes behind', () => {
    expect(formatTable(table).split('\n')).toEqual([
      '             exact  subject  tone',
      'fine-tuned    .475     .778  1.00',
      'blank image   .000     .100     –  white picture',
    ]);
  });

  it('hands every line to the painter with its row', () => {
    const marked = formatTable(table, (line, row) => `${row?.kind ?? 'head'}|${line.trim().slice(0, 4)}`);
    expect(marked.split('\n')).toEqual(['head|exac', 'model|fine', 'control|blan']);
  });
});

describe('numbers', () => {
  it('prints shares without the leading zero', () => {
    expect([0, 0.0004, 0.5, 0.9994, 0.9996, 1].map(formatShare)).toEqual([
      '.000',
      '.000',
      '.500',
      '.999',
      '1.00',
      '1.00',
    ]);
    expect(formatShare(undefined)).toBe('–');
  });

  it('knows the 95 % margin of a share', () => {
    expect(margin(0.5, 100)).toBeCloseTo(0.0962, 4);
    expect(margin(0, 40)).toBeCloseTo(0.0438, 4);
  });
});

describe('sizeOf', () => {
  const table = (counts: Partial<ResultsTable>) => sizeOf({ rows: [], parts: [], n: 3, ...counts });
  it('has rows and pictures where there are not as many as examples', () => {
    expect(table({})).toBe('3 examples');
    expect(table({ data_rows: 1500, pictures: 3 })).toBe('3 examples (1,500 rows)');
    expect(table({ data_rows: 3, pictures: 1 })).toBe('3 examples (1 picture)');
    expect(table({ n: 1, data_rows: 5, pictures: 1 })).toBe('1 example (5 rows)');
  });
});

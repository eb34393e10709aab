import { describe, expect, it } from 'vitest';
import { percent, times100 } from './numbers';
import { formatTable, sizeOf } from './results';
import type { ResultsTable } from './results';

const table: ResultsTable = {
  parts: ['subject', 'tone'],
  n: 672,
  rows: [
    { name: 'fine-tuned', kind: 'model', exact: 0.4754, parts: { subject: 0.778, tone: 1 } },
    { name: 'blank image', kind: 'control', exact: 0, parts: { subject: 0.1 }, note: 'one text' },
  ],
};

describe('formatTable', () => {
  it('aligns names to the left, numbers to the right, and notes behind', () => {
    expect(formatTable(table).split('\n')).toEqual([
      '             exact match  subject     tone',
      'fine-tuned        47.5 %   77.8 %  100.0 %',
      'blank image        0.0 %   10.0 %        –  one text',
    ]);
  });

  it('hands every line to the painter with its row', () => {
    const marked = formatTable(table, (line, row) => `${row?.kind ?? 'head'}|${line.trim().slice(0, 4)}`);
    expect(marked.split('\n')).toEqual(['head|exac', 'model|fine', 'control|blan']);
  });
});

describe('numbers', () => {
  it('have one decimal, and shares a per cent sign', () => {
    expect([0, 0.0004, 0.4754, 1, undefined, NaN].map(percent)).toEqual([
      '0.0 %',
      '0.0 %',
      '47.5 %',
      '100.0 %',
      '–',
      '–',
    ]);
    expect([0.3, 3.6628, undefined].map(times100)).toEqual(['30.0', '366.3', '–']);
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

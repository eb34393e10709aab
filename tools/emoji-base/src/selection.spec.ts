import { emojiIndex, parsePerson, peopleGrid, splitGrid, tripleOf } from '@blip2/emoji-captions';
import { describe, expect, it } from 'vitest';
import { candidateRows, finalRows, HELD_OUT_CELLS } from './selection';

const rows = emojiIndex();
const split = splitGrid(peopleGrid(rows));
const candidates = candidateRows(rows, split);
const distinct = candidates.rows.map((_, i) => String(i));
const of = (selection: typeof candidates, use: string) => selection.rows.filter((entry) => entry.use === use);

describe('the selection of training drawings', () => {
  it('has no validation or test triple in any style', () => {
    const hidden = new Set([...split.validation, ...split.test].map(tripleOf));
    const seen = of(candidates, 'base').flatMap(({ row }) => {
      const person = parsePerson(row.label);
      return person ? [tripleOf(person)] : [];
    });
    expect(seen.filter((triple) => hidden.has(triple))).toEqual([]);
    expect(of(candidates, 'validation').length).toBe(168);
    expect(of(candidates, 'test').length).toBe(672);
  });

  it('accounts for every row', () => {
    const left = Object.values(candidates.left).reduce((a, b) => a + b);
    expect(candidates.rows.length + left).toBe(rows.length);
    expect(candidates.left.flags).toBe(556);
    expect(candidates.left['two tones']).toBe(1140);
  });

  it('excludes people who are neither woman nor man, flags and two tones', () => {
    const labels = new Set(of(candidates, 'base').map(({ row }) => row.label));
    for (const label of ['person biking', 'police officer', 'people hugging', 'flag: France']) {
      expect(rows.some((row) => row.label === label)).toBe(true);
      expect(labels.has(label)).toBe(false);
    }
    for (const label of ['hedgehog', 'thumbs up: dark skin tone', 'princess'])
      expect(labels.has(label)).toBe(true);
  });

  it('holds out 240 cells, each of an object that is in another style', () => {
    const final = finalRows(candidates, distinct);
    const aside = of(final, 'held-out').map(({ row }) => row);
    expect(aside.length).toBe(HELD_OUT_CELLS);
    expect(new Set(aside.map((row) => row.hex)).size).toBe(HELD_OUT_CELLS);
    const shown = new Set(of(final, 'base').map(({ row }) => row.hex));
    for (const row of aside) {
      expect(row.group).not.toBe('people-body');
      expect(shown.has(row.hex)).toBe(true);
    }
  });

  it('excludes pixels of a held-out image, and pixels with two labels', () => {
    const digests = [...distinct];
    const at = (use: string, skip = 0) =>
      candidates.rows.map((entry, i) => ({ ...entry, i })).filter((e) => e.use === use)[skip].i;
    digests[at('base', 10)] = digests[at('test')];
    digests[at('base', 20)] = digests[at('base', 4000)];
    const final = finalRows(candidates, digests);
    expect(final.left['pixels of a hidden image']).toBe(1);
    expect(final.left['pixels under two labels']).toBe(2);
    expect(final.index).not.toContain(at('base', 10));
  });
});

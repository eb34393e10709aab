// Selects the drawings to train on: all with a clear label, except the grid's validation and test triples.
import { createHash } from 'node:crypto';
import { parsePerson, tripleOf } from '@blip2/emoji-captions';
import type { EmojiRow, GridSplit } from '@blip2/emoji-captions';

/** The use of a row; only `base` is for training. */
export type Use = 'base' | 'held-out' | 'validation' | 'test';

export interface Selection {
  rows: { row: EmojiRow; use: Use }[];
  /** Number of rows that each rule excluded, in the order of the rules. */
  left: Record<string, number>;
}

/** Number of objects whose drawing in one style is held out, to measure naming across styles. */
export const HELD_OUT_CELLS = 240;

/**
 * Applies the rules that need no pixels. There are too many similar flags; a neutral subject ("person biking") is drawn
 * as the woman or the man of the same row; labels with two tones name two people.
 */
export function candidateRows(rows: EmojiRow[], split: GridSplit): Selection {
  const kept = new Map<string, Use>([
    ...split.validation.map((row): [string, Use] => [cell(row), 'validation']),
    ...split.test.map((row): [string, Use] => [cell(row), 'test']),
  ]);
  const hidden = new Set([...split.validation, ...split.test].map(tripleOf));
  const activities = new Set(rows.flatMap((row) => parsePerson(row.label)?.activity ?? []));
  const left = { flags: 0, 'two tones': 0, 'neutral subject': 0, 'hidden triple': 0 };
  const out: Selection['rows'] = [];
  for (const row of rows) {
    const use = kept.get(cell(row));
    const person = parsePerson(row.label);
    if (use) out.push({ row, use });
    else if (row.group === 'flags') left.flags++;
    else if (tones(row.label) > 1) left['two tones']++;
    else if (isNeutral(row, activities)) left['neutral subject']++;
    else if (person && hidden.has(tripleOf(person))) left['hidden triple']++;
    else out.push({ row, use: 'base' });
  }
  return { rows: out, left };
}

/**
 * Applies the rules on pixels, then holds out `HELD_OUT_CELLS` object cells.
 * @param digests one text per row of `selection`; equal texts mean equal pixels
 */
export function finalRows(selection: Selection, digests: string[]): Selection & { index: number[] } {
  const hidden = new Set(digests.filter((_, i) => ['validation', 'test'].includes(selection.rows[i].use)));
  const labelsOf = new Map<string, Set<string>>();
  selection.rows.forEach(({ row }, i) => {
    labelsOf.set(digests[i], (labelsOf.get(digests[i]) ?? new Set()).add(row.label));
  });
  const left = { ...selection.left, 'pixels of a hidden image': 0, 'pixels under two labels': 0 };
  const index = selection.rows.flatMap(({ use }, i) => {
    if (use !== 'base') return [i];
    if (hidden.has(digests[i])) left['pixels of a hidden image']++;
    else if (labelsOf.get(digests[i])!.size > 1) left['pixels under two labels']++;
    else return [i];
    return [];
  });
  const heldOut = new Set(heldOutCells(index.map((i) => selection.rows[i])));
  const rows = index.map((i) => {
    const { row, use } = selection.rows[i];
    return { row, use: use === 'base' && heldOut.has(cell(row)) ? ('held-out' as const) : use };
  });
  return { rows, index, left };
}

/** One cell of each of 240 objects that are also in other styles, selected by hashing names. */
function heldOutCells(rows: Selection['rows']): string[] {
  const objects = rows
    .filter(({ row, use }) => use === 'base' && row.group !== 'people-body')
    .map(({ row }) => row);
  const styles = new Map<string, number>();
  for (const row of objects) styles.set(row.hex, (styles.get(row.hex) ?? 0) + 1);
  const rank = (text: string) => createHash('sha256').update(`held out ${text}`).digest('hex');
  const drawn = objects
    .filter((row) => styles.get(row.hex)! > 1)
    .map((row) => ({ row, rank: rank(cell(row)) }))
    .sort((a, b) => (a.rank < b.rank ? -1 : 1));
  const first = new Map(drawn.map(({ row }) => [row.hex, cell(row)]).reverse() as [string, string][]);
  return drawn
    .flatMap(({ row }) => (first.get(row.hex) === cell(row) ? [cell(row)] : []))
    .slice(0, HELD_OUT_CELLS);
}

/** Key of a drawing: its style and concept. */
function cell(row: Pick<EmojiRow, 'style' | 'hex'>): string {
  return `${row.style} ${row.hex}`;
}

function tones(label: string): number {
  return label.split('skin tone').length - 1;
}

/** "person biking", "people hugging", and the role name alone where a woman and a man of that role exist. */
function isNeutral(row: EmojiRow, activities: Set<string>): boolean {
  if (row.group !== 'people-body') return false;
  return /person|people/.test(row.label) || activities.has(row.label.split(': ')[0]);
}

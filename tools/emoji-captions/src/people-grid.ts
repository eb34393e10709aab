// The people grid: 2 subjects × 70 activities × 6 tones × 4 styles, every cell filled, and its split by triple.
// All four drawings of a triple are in the same split, so no caption of validation or test occurs in training.
import { createHash } from 'node:crypto';
import type { EmojiRow } from './emoji-index';

export const SUBJECTS = ['woman', 'man'] as const;
export type Subject = (typeof SUBJECTS)[number];

export const TONES = ['default', 'light', 'medium-light', 'medium', 'medium-dark', 'dark'] as const;
export type Tone = (typeof TONES)[number];

/** Subject, activity and skin tone of the Unicode label. */
export interface Person {
  subject: Subject;
  activity: string;
  tone: Tone;
}

export type PeopleRow = EmojiRow & Person;

export const SPLITS = ['train', 'validation', 'test'] as const;
export type SplitName = (typeof SPLITS)[number];
export type GridSplit = Record<SplitName, PeopleRow[]>;

/** A full activity has every subject in every tone. */
const FULL = SUBJECTS.length * TONES.length;

/** Reads a CLDR label such as `man biking: dark skin tone`; undefined if it is not about one man or one woman. */
export function parsePerson(label: string): Person | undefined {
  const [head, tail = ''] = label.split(': ');
  const match = /^(man|woman)(?: |, )(.+)$/.exec(head);
  if (!match) return undefined;
  const parts = tail === '' ? [] : tail.split(', ');
  const tones = parts.filter(isTone);
  if (tones.length > 1) return undefined;
  return {
    subject: match[1] as Subject,
    activity: [match[2], ...parts.filter((part) => !isTone(part))].join(' '),
    tone: (tones[0]?.replace(' skin tone', '') ?? 'default') as Tone,
  };
}

function isTone(part: string): boolean {
  return part.endsWith('skin tone');
}

/** The name of a triple, the unit of the split. */
export function tripleOf(person: Person): string {
  return `${person.subject}|${person.activity}|${person.tone}`;
}

/** The rows of the index that form the complete grid: 3,360 images of 840 triples with the pinned packages. */
export function peopleGrid(rows: EmojiRow[]): PeopleRow[] {
  const people = rows.flatMap((row) => {
    const person = row.subgroup === 'family' ? undefined : parsePerson(row.label);
    return person ? [{ ...row, ...person }] : [];
  });
  const triplesOf = new Map<string, Set<string>>();
  for (const row of people) {
    const triples = triplesOf.get(row.activity) ?? new Set<string>();
    triplesOf.set(row.activity, triples.add(tripleOf(row)));
  }
  return people.filter((row) => triplesOf.get(row.activity)?.size === FULL);
}

/**
 * Splits by triple: 20 % of the triples test, 5 % validation, the rest training, in an order from hashing seed and
 * name.
 * @throws if training lacks a subject, an activity or a tone of the grid
 */
export function splitGrid(grid: PeopleRow[], seed = 0): GridSplit {
  const rank = (triple: string) => createHash('sha256').update(`${seed} ${triple}`).digest('hex');
  const triples = [...new Set(grid.map(tripleOf))]
    .map((triple) => ({ triple, rank: rank(triple) }))
    .sort((a, b) => (a.rank < b.rank ? -1 : 1))
    .map(({ triple }) => triple);
  const test = Math.round(triples.length * 0.2);
  const validation = Math.round(triples.length * 0.05);
  const part = new Map<string, SplitName>(
    triples.map((triple, i) => [triple, i < test ? 'test' : i < test + validation ? 'validation' : 'train']),
  );
  const of = (name: SplitName) => grid.filter((row) => part.get(tripleOf(row)) === name);
  const split = { train: of('train'), validation: of('validation'), test: of('test') };
  assertCovered(grid, split.train);
  return split;
}

/** Checks that every word of validation and test occurs in training. */
function assertCovered(grid: PeopleRow[], train: PeopleRow[]): void {
  for (const field of ['subject', 'activity', 'tone'] as const) {
    const trained = new Set<string>(train.map((row) => row[field]));
    const missing = [...new Set<string>(grid.map((row) => row[field]))].filter(
      (value) => !trained.has(value),
    );
    if (missing.length > 0)
      throw new Error(
        `emoji-captions: expected images of every ${field} in the training split, found none of ${missing.join(', ')}; choose another seed`,
      );
  }
}

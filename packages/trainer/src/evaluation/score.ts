/** Counting right captions: the whole text, and its named parts. */
import { withinTime } from '@blip2/data-captions';

export interface Score {
  /** share of predictions equal to one of their references, white space at the ends aside */
  exact: number;
  /** share right per named group of the pattern */
  parts: Record<string, number>;
  /** share of predictions that the pattern matches; 1 without a pattern */
  parsed: number;
  n: number;
}

/** The named groups of a caption; a group without a match is ''. */
export type Parts = Record<string, string>;

/** Reads captions into their parts; undefined for a text that the pattern does not match. */
export function partsReader(pattern: string): (text: string) => Parts | undefined {
  const regex = new RegExp(pattern);
  const names = partNames(pattern);
  return (text) => {
    const groups = limited(() => regex.exec(text.trim())?.groups);
    return groups && Object.fromEntries(names.map((name) => [name, groups[name] ?? '']));
  };
}

/** @throws Error for a pattern that takes over a second on one text */
function limited<T>(search: () => T): T {
  try {
    return withinTime(1000, search);
  } catch (error) {
    throw new Error(`parts_pattern: ${(error as Error).message}`, { cause: error });
  }
}

/** The named groups of a pattern, in the order they are written. */
export function partNames(pattern: string | undefined): string[] {
  if (!pattern) return [];
  return [...pattern.matchAll(/\(\?<([A-Za-z_]\w*)>/g)].map((match) => match[1]);
}

/**
 * Compares captions with their references, row by row: equal to one of several is right, and so is a part.
 * An unreadable prediction, like an unreadable reference, counts as wrong in every part. A group that is absent
 * on both sides counts as right.
 */
export function scoreCaptions(predictions: string[], references: string[][], partsPattern?: string): Score {
  const n = references.length;
  if (predictions.length !== n)
    throw new Error(`scoreCaptions: expected ${n} predictions, one per example, found ${predictions.length}`);
  const exact = count(references, (texts, i) => trimmed(texts).includes(predictions[i].trim()));
  if (!partsPattern) return { exact: exact / n, parts: {}, parsed: 1, n };

  const found = predictions.map(partsReader(partsPattern));
  const parts = scoreParts(found, references, partsPattern);
  return { exact: exact / n, parts, parsed: count(found, (parsed) => !!parsed) / n, n };
}

/** The share of predictions whose part is that of one of the references, by name of the part. */
export function scoreParts(
  found: (Parts | undefined)[],
  references: string[][],
  partsPattern: string,
): Record<string, number> {
  const read = partsReader(partsPattern);
  const wanted = references.map((texts) => readAll(texts, read));
  const right = (name: string) =>
    count(wanted, (parts, i) => parts.some((want) => found[i]?.[name] === want[name])) / references.length;
  return Object.fromEntries(partNames(partsPattern).map((name) => [name, right(name)]));
}

/** The parts of the references that can be read. */
const readAll = (texts: string[], read: (text: string) => Parts | undefined) =>
  texts.map(read).filter((parts) => parts !== undefined);

const trimmed = (texts: string[]) => texts.map((text) => text.trim());

/** The expected score of copying a random training caption. */
export function chanceScore(training: string[], references: string[][], partsPattern?: string): Score {
  const n = references.length;
  const exact = expectedHits(trimmed(training), references.map(trimmed));
  if (!partsPattern) return { exact, parts: {}, parsed: 1, n };
  const read = partsReader(partsPattern);
  const seen = training.map(read);
  const wanted = references.map((texts) => readAll(texts, read));
  const parts: Record<string, number> = {};
  for (const name of partNames(partsPattern))
    parts[name] = expectedHits(
      seen.map((row) => row?.[name]),
      wanted.map((texts) => texts.map((want) => want[name])),
    );
  return { exact, parts, parsed: count(seen, (row) => !!row) / training.length, n };
}

/** The most frequent text; in a tie, the first one. */
export function majority(texts: string[]): string {
  let best = '';
  const counts = tally(texts);
  for (const [text, times] of counts) if (times > (counts.get(best) ?? 0)) best = text;
  return best;
}

function expectedHits(training: (string | undefined)[], references: string[][]): number {
  const counts = tally(training.filter((value) => value !== undefined));
  let hits = 0;
  for (const values of references) for (const value of new Set(values)) hits += counts.get(value) ?? 0;
  return hits / (training.length * references.length);
}

function tally(values: string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}

function count<T>(values: T[], holds: (value: T, i: number) => boolean): number {
  return values.reduce((total, value, i) => total + (holds(value, i) ? 1 : 0), 0);
}

/**
 * Opens data sets and recognises their format by the files at the path: an imagefolder with metadata.jsonl or .csv, JSONL,
 * CSV, TSV, COCO captions, VQAv2, LAVIS annotations, Parquet, WebDataset. Texts are read at once, images when needed.
 * One DataError lists all problems of the rows.
 * Layout references: Hugging Face datasets ("imagefolder", Parquet), COCO, VQA, LAVIS, webdataset.
 */
import type { Problem } from './errors';
import { DataError, show } from './errors';
import type { Example } from './example';
import { toExample } from './example';
import type { Layout } from './columns';
import { canonical } from './splits';
import type { Fractions } from './fractions';
import { splitByFraction } from './fractions';
import { checkSeed, permutation } from './random';
import type { Contents } from './read-rows';
import { readRows } from './read-rows';

export interface Dataset {
  /** Absolute path of the folder or file. */
  path: string;
  examples: Example[];
  /** With `skip_bad`: the problems of the rows left out. */
  skipped?: Problem[];
}

export interface DatasetOptions extends Layout {
  /**
   * `train`, `validation`, `test` or another name; `val`, `valid` and `dev` mean `validation`.
   * Default: `train` if there are splits, else all rows.
   */
  split?: string;
  /** For data without splits: fractions of the images, chosen at random with `seed`; equal images stay together. */
  split_fractions?: Fractions;
  /**
   * Keep at most this many examples: the first ones, or with `seed` a random choice (a smaller limit gives a subset of a
   * larger one).
   */
  limit?: number;
  seed?: number;
  /** Leave bad rows out and list them in `skipped`, instead of throwing. */
  skip_bad?: boolean;
}

/**
 * Opens a data set: a folder, or one of its files. Image paths are relative to the file that contains them. Splits are
 * folders, file names, a `split` column, or random (`split_fractions`). Examples are in file order.
 * @throws DataError when the path or split does not exist, or with a list of all bad rows
 */
export async function openDataset(path: string, options: DatasetOptions = {}): Promise<Dataset> {
  const { limit, seed, split_fractions, skip_bad } = options;
  if (limit !== undefined && !(Number.isSafeInteger(limit) && limit > 0)) {
    throw new DataError(`limit: expected a positive integer, found ${limit}`);
  }
  if (seed !== undefined) checkSeed(seed);
  const contents = await readRows(path, options);
  const { root, names } = contents;
  const drawn = split_fractions !== undefined;
  if (drawn && names.length > 0) throw new DataError(hasSplits(root, names));
  const chosen = drawn ? undefined : chooseSplit(root, names, options.split);
  const { examples, bad } = checkRows(contents, chosen);
  if (bad.length > 0 && (!skip_bad || examples.length === 0)) throw badRows(root, bad, examples.length);
  const all = drawn ? await drawnSplit(root, examples, options.split, split_fractions, seed ?? 0) : examples;
  if (all.length === 0) {
    throw new DataError(
      `${root}: no rows${chosen === undefined ? '' : ` in split "${chosen}"`}; add lines to its .jsonl file`,
    );
  }
  return { path: root, examples: take(all, limit, seed), ...(skip_bad && { skipped: bad }) };
}

/** One split with its good and bad rows. */
export interface SplitContents {
  /** Undefined if the data is not split. */
  split: string | undefined;
  examples: Example[];
  bad: Problem[];
}

/** Reads every split of a data set, with its bad rows. @throws DataError when the path is not a data set */
export async function openSplits(
  path: string,
  layout: Layout = {},
): Promise<{ path: string; splits: SplitContents[] }> {
  const contents = await readRows(path, layout);
  const names = contents.names.length > 0 ? contents.names : [undefined];
  return { path: contents.root, splits: names.map((split) => ({ split, ...checkRows(contents, split) })) };
}

/**
 * Names of the splits of a data set, `train`, `validation`, `test` first; empty if it is not split.
 * @throws DataError when the path is not a data set
 */
export async function listSplits(
  path: string,
  fractions?: Fractions,
  layout: Layout = {},
): Promise<string[]> {
  const { root, names } = await readRows(path, layout);
  if (!fractions) return names;
  if (names.length > 0) throw new DataError(hasSplits(root, names));
  return ['train', ...(fractions.validation ? ['validation'] : []), ...(fractions.test ? ['test'] : [])];
}

const hasSplits = (root: string, names: string[]) =>
  `${root}: expected data without splits for split fractions, found ${names.map((n) => `"${n}"`).join(', ')}; use these, or join them first`;

/** The good rows of a split, and the problems of the others. */
function checkRows(contents: Contents, chosen: string | undefined): { examples: Example[]; bad: Problem[] } {
  const bad: Problem[] = contents.problems.filter((p) => p.split === undefined || p.split === chosen);
  const examples: Example[] = [];
  for (const { split, row } of contents.rows) {
    if (chosen !== undefined && split === undefined) {
      const found = show(row.values.split);
      bad.push({ source: row.source, expected: 'a name in "split", as in other rows', found });
    }
    if (split !== chosen) continue;
    const example = toExample(row, bad);
    if (example) examples.push(example);
  }
  bad.sort((a, b) => a.source.localeCompare(b.source, 'en', { numeric: true }));
  return { examples, bad };
}

function badRows(root: string, bad: Problem[], good: number): DataError {
  const count = new Set(bad.map((p) => p.source)).size;
  return new DataError(`${root}: ${count} of ${count + good} rows cannot be used`, bad);
}

function chooseSplit(root: string, names: string[], requested = 'train'): string | undefined {
  const split = canonical(requested);
  if (names.includes(split)) return split;
  if (names.length > 0)
    throw new DataError(`${root}: no split "${requested}"; it has ${names.map((n) => `"${n}"`).join(', ')}`);
  if (split === 'train') return undefined;
  throw new DataError(
    `${root}: no split "${requested}": this data set is not split; make train/ and ${split}/ folders or a "split" column`,
  );
}

async function drawnSplit(
  root: string,
  examples: Example[],
  requested = 'train',
  fractions: Fractions,
  seed: number,
): Promise<Example[]> {
  const splits = await splitByFraction(examples, fractions, seed);
  const found = examples.filter((_, i) => splits[i] === canonical(requested));
  if (found.length === 0)
    throw new DataError(`${root}: no split "${requested}" among the fractions ${show(fractions)}`);
  return found;
}

function take(examples: Example[], limit: number | undefined, seed: number | undefined): Example[] {
  if (limit === undefined || limit >= examples.length) return examples;
  if (seed === undefined) return examples.slice(0, limit);
  const chosen = permutation(seed, 0, examples.length).slice(0, limit).sort();
  return Array.from(chosen, (i) => examples[i]);
}

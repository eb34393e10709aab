/**
 * Data sets as users have them, told apart by what lies at the path: an imagefolder with metadata.jsonl or .csv, JSONL,
 * CSV, TSV, COCO captions, VQAv2, LAVIS annotations, Parquet, WebDataset. Texts are read at once, images when they are
 * needed. Everything that is wrong with the rows is reported in one DataError.
 * Layout references: Hugging Face datasets ("imagefolder", Parquet), COCO, VQA, LAVIS, webdataset.
 */
import type { Problem } from './errors';
import { DataError, show } from './errors';
import type { Example } from './example';
import { toExample } from './example';
import { canonical } from './find-files';
import type { Fractions } from './fractions';
import { splitByFraction } from './fractions';
import { checkSeed, permutation } from './random';
import type { Contents } from './read-rows';
import { readRows } from './read-rows';

export interface Dataset {
  /** Absolute path of the folder or file. */
  path: string;
  examples: Example[];
  /** With `skip_bad`: what was wrong with the rows that were left out. */
  skipped?: Problem[];
}

export interface DatasetOptions {
  /** `train`, `validation`, `test` or another name; `val`, `valid` and `dev` mean `validation`. Default: `train` where there are splits, else all rows. */
  split?: string;
  /** For data without splits: shares of the images, drawn with `seed`; equal images stay together. */
  split_fractions?: Fractions;
  /** Keep at most this many examples: the first ones, or with `seed` a random choice (a smaller limit is a subset of a larger one). */
  limit?: number;
  seed?: number;
  /** Leave bad rows out and name them in `skipped`, instead of throwing. */
  skip_bad?: boolean;
}

/**
 * Opens a data set: a folder, or one of its files. Image paths are relative to the file that names them. Splits are
 * folders, file names, a `split` column, or shares (`split_fractions`). Examples come in file order.
 * Throws DataError: path or split not there, or a list of all bad rows.
 */
export async function openDataset(path: string, options: DatasetOptions = {}): Promise<Dataset> {
  const { limit, seed, split_fractions, skip_bad } = options;
  if (limit !== undefined && !(Number.isSafeInteger(limit) && limit > 0)) {
    throw new DataError(`limit: expected a positive integer, found ${limit}`);
  }
  if (seed !== undefined) checkSeed(seed);
  const contents = await readRows(path);
  const { root, names } = contents;
  const drawn = split_fractions !== undefined;
  if (drawn && names.length > 0) throw new DataError(hasSplits(root, names));
  const wanted = drawn ? undefined : chooseSplit(root, names, options.split);
  const { examples, bad } = checkRows(contents, wanted);
  if (bad.length > 0 && (!skip_bad || examples.length === 0)) throw badRows(root, bad, examples.length);
  const all = drawn ? await drawnSplit(root, examples, options.split, split_fractions, seed ?? 0) : examples;
  if (all.length === 0) {
    throw new DataError(
      `${root}: no rows${wanted === undefined ? '' : ` in split "${wanted}"`}; add lines to its .jsonl file`,
    );
  }
  return { path: root, examples: take(all, limit, seed), ...(skip_bad && { skipped: bad }) };
}

/** One split as it is, good rows and bad ones. */
export interface SplitContents {
  /** Nothing where the data is not split. */
  split: string | undefined;
  examples: Example[];
  bad: Problem[];
}

/** Every split of a data set, read once, for looking at it as a whole. Throws DataError when the path is no data set. */
export async function openSplits(path: string): Promise<{ path: string; splits: SplitContents[] }> {
  const contents = await readRows(path);
  const names = contents.names.length > 0 ? contents.names : [undefined];
  return { path: contents.root, splits: names.map((split) => ({ split, ...checkRows(contents, split) })) };
}

/**
 * Names of the splits of a data set, `train`, `validation`, `test` first; empty when it is not split.
 * Throws DataError when the path is no data set.
 */
export async function listSplits(path: string, fractions?: Fractions): Promise<string[]> {
  const { root, names } = await readRows(path);
  if (!fractions) return names;
  if (names.length > 0) throw new DataError(hasSplits(root, names));
  return ['train', ...(fractions.validation ? ['validation'] : []), ...(fractions.test ? ['test'] : [])];
}

const hasSplits = (root: string, names: string[]) =>
  `${root}: expected data without splits for split fractions, found ${names.map((n) => `"${n}"`).join(', ')}; use these, or join them first`;

/** The good rows of a split, and what is wrong with the others. */
function checkRows(contents: Contents, wanted: string | undefined): { examples: Example[]; bad: Problem[] } {
  const bad: Problem[] = contents.problems.filter((p) => p.split === undefined || p.split === wanted);
  const examples: Example[] = [];
  for (const { split, row } of contents.rows) {
    if (wanted !== undefined && split === undefined) {
      const found = show(row.values.split);
      bad.push({ source: row.source, expected: 'a name in "split", as in other rows', found });
    }
    if (split !== wanted) continue;
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

function chooseSplit(root: string, names: string[], asked: string | undefined): string | undefined {
  const wanted = asked === undefined ? undefined : canonical(asked);
  if (names.length === 0) {
    if (wanted === undefined || wanted === 'train') return undefined;
    throw new DataError(
      `${root}: no split "${asked}": this data set is not split; make train/ and ${wanted}/ folders or a "split" column`,
    );
  }
  if (names.includes(wanted ?? 'train')) return wanted ?? 'train';
  throw new DataError(
    `${root}: no split "${asked ?? 'train'}"; it has ${names.map((n) => `"${n}"`).join(', ')}`,
  );
}

async function drawnSplit(
  root: string,
  examples: Example[],
  asked = 'train',
  fractions: Fractions,
  seed: number,
): Promise<Example[]> {
  const splits = await splitByFraction(examples, fractions, seed);
  const found = examples.filter((_, i) => splits[i] === canonical(asked));
  if (found.length === 0)
    throw new DataError(`${root}: no split "${asked}" among the fractions ${show(fractions)}`);
  return found;
}

function take(examples: Example[], limit: number | undefined, seed: number | undefined): Example[] {
  if (limit === undefined || limit >= examples.length) return examples;
  if (seed === undefined) return examples.slice(0, limit);
  const chosen = permutation(seed, 0, examples.length).slice(0, limit).sort();
  return Array.from(chosen, (i) => examples[i]);
}

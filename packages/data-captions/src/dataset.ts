/**
 * Opens data sets and recognises their format by the files at the path: an imagefolder with metadata.jsonl or .csv, JSONL,
 * CSV, TSV, COCO captions, VQAv2, LAVIS annotations, Parquet, WebDataset. Texts are read at once, images when needed.
 * One DataError lists all problems of the rows.
 * Layout references: Hugging Face datasets ("imagefolder", Parquet), COCO, VQA, LAVIS, webdataset.
 */
import type { Task } from './collate';
import type { Problem } from './errors';
import { countRows, DataError, inOrder, show } from './errors';
import type { Example } from './example';
import type { Layout } from './layout';
import { canonical } from './splits';
import type { Fractions } from './fractions';
import { splitByFraction } from './fractions';
import { groupExamples, stableOrder } from './group';
import type { TextRules } from './judge';
import { imageProblem } from './image-errors';
import { imageFault, judgeRow, rowsError } from './judge';
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
  /**
   * For evaluation: the rows of one picture (for `vqa`: with one question) are one example with all their references
   * (see `groupExamples`), `limit` counts these, and its random choice does not depend on the order of the rows.
   */
  references_for?: Task;
  /** What the texts are used for; rows that do not fit are bad. */
  texts?: TextRules;
  /** Leave bad rows, and rows with images that cannot be decoded, out and list them in `skipped`, instead of throwing. */
  skip_bad?: boolean;
  /** With `skip_bad`: called as images are decoded. */
  onProgress?: (done: number, total: number) => void;
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
  const judged = judgeRows(contents, chosen, options.texts ?? {});
  const bad = chosen === undefined ? judged.bad : [...judged.bad, ...rowsWithoutSplit(contents)];
  const total = judged.examples.length + countRows(bad);
  if (bad.length > 0 && (!skip_bad || judged.examples.length === 0))
    throw rowsError(root, inOrder(bad), total);
  const all = drawn
    ? await drawnSplit(root, judged.examples, options.split, split_fractions, seed ?? 0)
    : judged.examples;
  if (all.length === 0) throw noRows(root, chosen);
  const task = options.references_for;
  const examples = await take(task === undefined ? all : await groupExamples(all, task), options, bad);
  if (examples.length === 0) throw rowsError(root, inOrder(bad), total);
  return { path: root, examples, ...(skip_bad && { skipped: inOrder(bad) }) };
}

/** One split with its good and bad rows. */
export interface SplitContents {
  /** Undefined if the data is not split. */
  split: string | undefined;
  examples: Example[];
  bad: Problem[];
}

/**
 * Reads every split of a data set, with its bad rows. Rows that belong to no split, although others do, are the last.
 * @throws DataError when the path is not a data set, or a split has no rows
 */
export async function openSplits(
  path: string,
  { texts = {}, ...layout }: Layout & { texts?: TextRules } = {},
): Promise<{ path: string; splits: SplitContents[] }> {
  const contents = await readRows(path, layout);
  const names = contents.names.length > 0 ? contents.names : [undefined];
  const splits: SplitContents[] = names.map((split) => ({ split, ...judgeRows(contents, split, texts) }));
  const empty = splits.find(({ examples, bad }) => examples.length + bad.length === 0);
  if (empty) throw noRows(contents.root, empty.split);
  const lost = contents.names.length > 0 ? rowsWithoutSplit(contents) : [];
  if (lost.length > 0) splits.push({ split: undefined, examples: [], bad: lost });
  for (const split of splits) split.bad = inOrder(split.bad);
  return { path: contents.root, splits };
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
function judgeRows(
  contents: Contents,
  chosen: string | undefined,
  rules: TextRules,
): { examples: Example[]; bad: Problem[] } {
  const bad: Problem[] = contents.problems.filter((p) => p.split === chosen);
  const rows = contents.rows.filter(({ split }) => split === chosen);
  const examples = rows.flatMap(({ row }) => judgeRow(row, rules, bad) ?? []);
  return { examples, bad };
}

/** Problems of rows that belong to no split of a data set that has splits. */
function rowsWithoutSplit({ problems, rows }: Contents): Problem[] {
  const lost = rows.filter(({ split }) => split === undefined);
  const expected = 'a name in "split", as in other rows';
  return [
    ...problems.filter(({ split }) => split === undefined),
    ...lost.map(({ row }) => ({ source: row.source, expected, found: show(row.values.split) })),
  ];
}

const noRows = (root: string, split: string | undefined) =>
  new DataError(
    `${root}: no rows${split === undefined ? '' : ` in split "${split}"`}; expected at least one row with an image and a text`,
  );

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

/**
 * At most `limit` of the examples, in their order; with `skip_bad` of those whose images can be decoded, while the rows of the
 * others are added to `bad`.
 */
async function take(examples: Example[], options: DatasetOptions, bad: Problem[]): Promise<Example[]> {
  const { limit = examples.length, skip_bad, onProgress } = options;
  const total = Math.min(limit, examples.length);
  const taken: number[] = [];
  const faults = new Map<string, Promise<string | undefined>>();
  const faultIn = (image: string) => {
    if (!faults.has(image)) faults.set(image, imageFault(image));
    return faults.get(image)!;
  };
  const order = limit < examples.length ? drawOrder(examples, options) : examples.map((_, i) => i);
  for (let from = 0; from < order.length && taken.length < limit; from += AT_ONCE) {
    const some = order.slice(from, from + AT_ONCE);
    const found = await Promise.all(some.map((i) => (skip_bad ? faultIn(examples[i].image) : undefined)));
    for (const [k, i] of some.entries()) {
      if (taken.length === limit) break;
      if (found[k] === undefined) taken.push(i);
      else for (const row of examples[i].rows ?? [examples[i]]) bad.push(imageProblem(row, found[k]));
    }
    if (skip_bad) onProgress?.(taken.length, total);
  }
  return taken.sort((a, b) => a - b).map((i) => examples[i]);
}

/** Images decoded side by side. */
const AT_ONCE = 8;

/** The order in which a limit takes examples: that of the file, or with `seed` a random one. */
function drawOrder(examples: Example[], { seed, references_for }: DatasetOptions): number[] {
  if (seed === undefined) return examples.map((_, i) => i);
  const order = references_for === undefined ? undefined : stableOrder(examples);
  return Array.from(permutation(seed, 0, examples.length), (i) => order?.[i] ?? i);
}

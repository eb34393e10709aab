/**
 * Data sets as users have them: an imagefolder (a folder with metadata.jsonl, whole or one per split) or a single
 * .jsonl. Everything that is wrong with the rows is reported in one DataError.
 * Layout reference: Hugging Face datasets, "imagefolder".
 */
import type { Stats } from 'node:fs';
import { statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import type { Problem } from './errors';
import { DataError, show } from './errors';
import type { Row } from './jsonl';
import { readJsonl } from './jsonl';
import { checkSeed, permutation } from './random';

/** One image with what is to be said about it: a caption, or a question and its answer, or both. */
export interface Example {
  /** Absolute path. */
  image: string;
  caption?: string;
  question?: string;
  answer?: string;
  /** All other columns of the row, as they came. */
  fields: Record<string, unknown>;
  /** `file:line` of the row, for error messages. */
  source: string;
}

export interface Dataset {
  /** Absolute path of the folder or file. */
  path: string;
  examples: Example[];
}

export interface DatasetOptions {
  /** `train`, `validation`, `test` or another name; `val`, `valid` and `dev` mean `validation`. Default: `train` where there are splits, else all rows. */
  split?: string;
  /** Keep at most this many examples: the first ones, or with `seed` a random choice (a smaller limit is a subset of a larger one). */
  limit?: number;
  seed?: number;
}

const SPLITS = ['train', 'validation', 'test'];
const ALIASES: Record<string, string[]> = { validation: ['validation', 'val', 'valid', 'dev'] };
const METADATA = 'metadata.jsonl';

const canonical = (split: string) => (ALIASES.validation.includes(split) ? 'validation' : split);

/** What lies at a path; nothing also for names that the file system refuses (too long, a zero byte, a file used as a folder). */
function statOf(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}
const isFile = (path: string) => statOf(path)?.isFile() ?? false;
const isFolder = (path: string) => statOf(path)?.isDirectory() ?? false;

/**
 * Opens a data set. `path` is a folder with metadata.jsonl ({file_name, text | caption} or {file_name, question,
 * answer}), or with such a folder per split (train/, validation/, test/), or a .jsonl file ({image, caption} or
 * {image, question, answer}). Image paths are relative to the .jsonl file. A `split` column selects rows where
 * there are no split folders. Examples come in file order.
 * Throws DataError: path or split not there, or a list of all bad rows.
 */
export async function openDataset(path: string, options: DatasetOptions = {}): Promise<Dataset> {
  const { limit, seed } = options;
  if (limit !== undefined && !(Number.isSafeInteger(limit) && limit > 0)) {
    throw new DataError(`limit: expected a positive integer, found ${limit}`);
  }
  if (seed !== undefined) checkSeed(seed);
  const { root, names, rows, problems } = await readRows(path);
  const wanted = chooseSplit(root, names, options.split);
  const bad: Problem[] = problems.filter((p) => p.split === undefined || p.split === wanted);
  const examples: Example[] = [];
  for (const { split, row } of rows) {
    if (wanted !== undefined && split === undefined) {
      bad.push({
        source: row.source,
        expected: 'a name in "split", as in other rows',
        found: show(row.values.split),
      });
    }
    if (split !== wanted) continue;
    const example = toExample(row, bad);
    if (example) examples.push(example);
  }
  if (bad.length > 0) {
    bad.sort((a, b) => a.source.localeCompare(b.source, 'en', { numeric: true }));
    const count = new Set(bad.map((p) => p.source)).size;
    throw new DataError(`${root}: ${count} of ${count + examples.length} rows cannot be used`, bad);
  }
  if (examples.length === 0) {
    throw new DataError(
      `${root}: no rows${wanted === undefined ? '' : ` in split "${wanted}"`}; add lines to its .jsonl file`,
    );
  }
  return { path: root, examples: take(examples, limit, seed) };
}

/** Names of the splits of a data set, `train`, `validation`, `test` first; empty when it is not split. Throws DataError when the path is no data set. */
export async function listSplits(path: string): Promise<string[]> {
  return (await readRows(path)).names;
}

interface Contents {
  root: string;
  /** The splits there are. */
  names: string[];
  rows: { split: string | undefined; row: Row }[];
  problems: (Problem & { split?: string })[];
}

/** All rows of all splits, not yet checked, and the names of the splits. */
async function readRows(path: string): Promise<Contents> {
  const root = resolve(path);
  const files = findFiles(root);
  const rows: Contents['rows'] = [];
  const problems: Contents['problems'] = [];
  const names = new Set<string>();
  for (const { file, split } of files) {
    const read = await readJsonl(file);
    for (const problem of read.problems) problems.push({ ...problem, split });
    if (split !== undefined) names.add(split);
    for (const row of read.rows) {
      const column = row.values.split;
      const own = split ?? (typeof column === 'string' && column !== '' ? canonical(column) : undefined);
      if (own !== undefined) names.add(own);
      rows.push({ split: own, row });
    }
  }
  const rank = (name: string) => (SPLITS.includes(name) ? SPLITS.indexOf(name) : SPLITS.length);
  return { root, names: [...names].sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1)), rows, problems };
}

/** The .jsonl files of a data set with the split that each belongs to, if folders tell. */
function findFiles(root: string): { file: string; split?: string }[] {
  if (isFile(root)) {
    if (root.endsWith('.jsonl')) return [{ file: root }];
    throw new DataError(
      `${root}: expected a folder or a .jsonl file; write one JSON object {"image", "caption"} a line`,
    );
  }
  if (!isFolder(root))
    throw new DataError(`${root}: there is no such folder or file; check the path of the data`);
  if (isFile(join(root, METADATA))) return [{ file: join(root, METADATA) }];
  const files: { file: string; split: string }[] = [];
  for (const split of SPLITS) {
    const folders = (ALIASES[split] ?? [split]).filter((name) => isFile(join(root, name, METADATA)));
    if (folders.length > 1) {
      throw new DataError(`${root}: ${folders.join('/ and ')}/ both mean the split "${split}"; keep one`);
    }
    if (folders.length === 1) files.push({ file: join(root, folders[0], METADATA), split });
  }
  if (files.length === 0) {
    throw new DataError(
      `${root}: expected ${METADATA} in it, or in train/, validation/ or test/ below it; found neither. ` +
        `Write one JSON object {"file_name", "text"} a line`,
    );
  }
  return files;
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

/** A row as an example, or nothing after writing down what is wrong with it. */
function toExample({ source, values }: Row, problems: Problem[]): Example | undefined {
  const bad = (expected: string, found: string) => void problems.push({ source, expected, found });
  const before = problems.length;
  const text = (name: string): string | undefined => {
    const value = values[name];
    if (value === undefined || value === null) return undefined;
    if (typeof value !== 'string') bad(`a string in "${name}"`, show(value));
    else if (value.trim() === '') bad(`words in "${name}"`, 'an empty string');
    else return value;
    return undefined;
  };

  const pathColumn = 'image' in values ? 'image' : 'file_name';
  const captionColumn = 'caption' in values ? 'caption' : 'text';
  const image = text(pathColumn);
  const [caption, question, answer] = [text(captionColumn), text('question'), text('answer')];
  if (problems.length === before) {
    if (image === undefined) bad('an image path in "image" or "file_name"', `columns ${columns(values)}`);
    if (question !== undefined && answer === undefined) bad('an "answer" to the question', 'none');
    else if (answer !== undefined && question === undefined) bad('a "question" for the answer', 'none');
    else if (caption === undefined && question === undefined) {
      bad('"caption" (or "text"), or "question" and "answer"', `columns ${columns(values)}`);
    }
  }
  const file = image === undefined ? '' : resolve(dirname(source.slice(0, source.lastIndexOf(':'))), image);
  if (image !== undefined) checkImage(image, file, bad);
  if (problems.length > before) return undefined;

  const used = [pathColumn, captionColumn, 'question', 'answer'];
  const fields = Object.fromEntries(Object.entries(values).filter(([name]) => !used.includes(name)));
  return {
    image: file,
    ...(caption !== undefined && { caption }),
    ...(question !== undefined && { question, answer }),
    fields,
    source,
  };
}

function checkImage(image: string, file: string, bad: (expected: string, found: string) => void): void {
  if (/^[a-z][a-z0-9+.-]+:\/\//i.test(image)) {
    bad('a path of a local image', `the address ${show(image)}; download it first`);
    return;
  }
  if (!isFile(file)) bad('an image file', `no file ${show(image)} (looked for ${file})`);
}

const columns = (values: Record<string, unknown>) => show(Object.keys(values));

function take(examples: Example[], limit: number | undefined, seed: number | undefined): Example[] {
  if (limit === undefined || limit >= examples.length) return examples;
  if (seed === undefined) return examples.slice(0, limit);
  const chosen = permutation(seed, 0, examples.length).slice(0, limit).sort();
  return Array.from(chosen, (i) => examples[i]);
}

/** Reads all rows of a data set in any format, without checking them. */
import { basename, resolve } from 'node:path';
import type { Layout } from './layout';
import type { Problem } from './errors';
import { DataError, reason } from './errors';
import { imageFinder } from './find-image';
import type { DataFile } from './find-files';
import { findFiles, isFile } from './find-files';
import { readCsv } from './formats/csv';
import { headOf } from './formats/encoding';
import type { JsonFile } from './formats/json';
import { jsonRows, readJsonFile } from './formats/json';
import { readParquet } from './formats/parquet';
import type { ReadRows, Row } from './formats/row';
import { readSidecars } from './formats/sidecars';
import { readTar } from './formats/tar';
import { tokenSplits } from './formats/token-splits';
import { readJsonl } from './jsonl';
import { shaped } from './shape';
import { splitColumn, SPLITS } from './splits';

export interface Contents {
  root: string;
  /** Names of the splits, `train`, `validation`, `test` first. */
  names: string[];
  rows: { split: string | undefined; row: Row }[];
  problems: (Problem & { split?: string })[];
}

/** Rows of all splits and the names of the splits. @throws DataError when the path is not a data set */
export async function readRows(path: string, layout: Layout = {}): Promise<Contents> {
  const root = resolve(path);
  const contents: Contents = { root, names: [], rows: [], problems: [] };
  const names = new Set<string>();
  const where = { layout, findImage: imageFinder(layout) };
  for (const { read, split } of await readFiles(findFiles(root), layout)) {
    const { rows, problems } = shaped(read);
    for (const problem of problems) contents.problems.push({ ...problem, split });
    if (split !== undefined && rows.length === 0) names.add(split);
    for (const row of rows) {
      const own = splitColumn(row.values) ?? row.split ?? split;
      if (own !== undefined) names.add(own);
      contents.rows.push({ split: own, row: { ...row, split: own, where } });
    }
  }
  const rank = (name: string) => (SPLITS.includes(name) ? SPLITS.indexOf(name) : SPLITS.length);
  contents.names = [...names].sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));
  return contents;
}

async function readFiles(files: DataFile[], layout: Layout): Promise<{ read: ReadRows; split?: string }[]> {
  if (files.some(({ format }) => format === 'json')) return readJson(files);
  const out: { read: ReadRows; split?: string }[] = [];
  for (const { file, format, split } of files) out.push({ read: await READERS[format](file, layout), split });
  return out;
}

const READERS: Record<DataFile['format'], (file: string, layout: Layout) => Promise<ReadRows>> = {
  jsonl: async (file) => ((await isList(file)) ? jsonRows(await readJsonFile(file)) : readJsonl(file)),
  csv: async (file, layout) => {
    const { rows, problems } = await readCsv(file, layout);
    return { rows: tokenSplits(rows, file), problems };
  },
  parquet: readParquet,
  tar: readTar,
  sidecars: readSidecars,
  json: async (file) => jsonRows(await readJsonFile(file)),
};

/** Whether a file called .jsonl is one JSON list. */
async function isList(file: string): Promise<boolean> {
  try {
    return /^[\ufeff\s]*\[\s*(?:\{|$)/.test(Buffer.from(await headOf(file, 256)).toString('utf8'));
  } catch (error) {
    throw new DataError(`${file}: cannot be read (${reason(error)})`);
  }
}

/** Reads JSON files, joining questions with their annotations. */
async function readJson(files: DataFile[]): Promise<{ read: ReadRows; split?: string }[]> {
  const parsed = await Promise.all(
    files.map(async (one) => ({ ...one, json: await readJsonFile(one.file) })),
  );
  const answers = parsed.filter(({ json }) => json.kind === 'answers').map(({ json }) => json);
  const rest = parsed.filter(({ json }) => json.kind !== 'answers');
  if (rest.length === 0)
    throw new DataError(
      `${files[0].file}: expected the file of questions, or the folder of both, found only answers`,
    );
  const out: { read: ReadRows; split?: string }[] = [];
  for (const { json, split } of rest) {
    const own = json.kind === 'questions' ? await answersTo(json, answers, rest.length > 1) : undefined;
    const read = own === 'none' ? withoutAnswers(json.file) : await jsonRows(json, own);
    out.push({ read, split });
  }
  return out;
}

/** A test split whose answers are not public makes only itself unusable. */
const withoutAnswers = (file: string): ReadRows => ({
  rows: [],
  problems: [
    { source: file, expected: 'a file of annotations with the answers in the same folder', found: 'none' },
  ],
});

/** The annotations of these questions: one of `answers`, or a file with the usual name in the same folder. */
async function answersTo(
  questions: JsonFile,
  answers: JsonFile[],
  others: boolean,
): Promise<JsonFile | 'none'> {
  const ids = (questions.content.questions as { question_id?: unknown }[]).map((q) => q?.question_id);
  const known = new Set(ids);
  const matching = answers.find(({ content }) =>
    (content.annotations as { question_id?: unknown }[]).some((a) => known.has(a?.question_id)),
  );
  if (matching) return matching;
  const name = basename(questions.file).replace('OpenEnded_', '').replace('questions', 'annotations');
  const beside = questions.file.slice(0, -basename(questions.file).length) + name;
  if (beside !== questions.file && isFile(beside)) return readJsonFile(beside);
  if (others) return 'none';
  throw new DataError(
    `${questions.file}: expected a file of annotations with the answers in the same folder, found no ${name}`,
  );
}

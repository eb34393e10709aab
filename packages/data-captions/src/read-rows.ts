/** Reads all rows of a data set in any format, without checking them. */
import { basename, resolve } from 'node:path';
import type { Problem } from './errors';
import { DataError } from './errors';
import type { DataFile } from './find-files';
import { canonical, findFiles, isFile, SPLITS } from './find-files';
import { readCsv } from './formats/csv';
import type { JsonFile } from './formats/json';
import { jsonRows, readJsonFile } from './formats/json';
import { readParquet } from './formats/parquet';
import type { ReadRows, Row } from './formats/row';
import { readTar } from './formats/tar';
import { readJsonl } from './jsonl';

export interface Contents {
  root: string;
  /** Names of the splits, `train`, `validation`, `test` first. */
  names: string[];
  rows: { split: string | undefined; row: Row }[];
  problems: (Problem & { split?: string })[];
}

/** Rows of all splits and the names of the splits. @throws DataError when the path is not a data set */
export async function readRows(path: string): Promise<Contents> {
  const root = resolve(path);
  const contents: Contents = { root, names: [], rows: [], problems: [] };
  const names = new Set<string>();
  for (const { read, split } of await readFiles(findFiles(root))) {
    for (const problem of read.problems) contents.problems.push({ ...problem, split });
    if (split !== undefined) names.add(split);
    for (const row of read.rows) {
      const column = row.values.split;
      const own = split ?? (typeof column === 'string' && column !== '' ? canonical(column) : undefined);
      if (own !== undefined) names.add(own);
      contents.rows.push({ split: own, row });
    }
  }
  const rank = (name: string) => (SPLITS.includes(name) ? SPLITS.indexOf(name) : SPLITS.length);
  contents.names = [...names].sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));
  return contents;
}

async function readFiles(files: DataFile[]): Promise<{ read: ReadRows; split?: string }[]> {
  if (files.some(({ format }) => format === 'json')) return readJson(files);
  const out: { read: ReadRows; split?: string }[] = [];
  for (const { file, format, split } of files) out.push({ read: await READERS[format](file), split });
  return out;
}

const READERS: Record<DataFile['format'], (file: string) => Promise<ReadRows>> = {
  jsonl: readJsonl,
  csv: readCsv,
  parquet: readParquet,
  tar: readTar,
  json: async (file) => jsonRows(await readJsonFile(file)),
};

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
    const own = json.kind === 'questions' ? await answersTo(json, answers) : undefined;
    out.push({ read: jsonRows(json, own), split });
  }
  return out;
}

/** The annotations of these questions: one of `answers`, or a file with the usual name in the same folder. */
async function answersTo(questions: JsonFile, answers: JsonFile[]): Promise<JsonFile> {
  const ids = (questions.content.questions as { question_id?: unknown }[]).map((q) => q?.question_id);
  const known = new Set(ids);
  const matching = answers.find(({ content }) =>
    (content.annotations as { question_id?: unknown }[]).some((a) => known.has(a?.question_id)),
  );
  if (matching) return matching;
  const name = basename(questions.file).replace('OpenEnded_', '').replace('questions', 'annotations');
  const beside = questions.file.slice(0, -basename(questions.file).length) + name;
  if (beside !== questions.file && isFile(beside)) return readJsonFile(beside);
  throw new DataError(
    `${questions.file}: expected a file of annotations with the answers in the same folder, found no ${name}`,
  );
}

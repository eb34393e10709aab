/**
 * Changes one text of a data set in its file. The new file replaces the old one at once, and differs from it in that text alone.
 * Not for Parquet, tar, base64 pictures, chats and texts in other encodings than UTF-8: those are exported by other programs.
 */
import { existsSync } from 'node:fs';
import { open, readFile, realpath, rename, rm, stat } from 'node:fs/promises';
import { dirname, extname, basename, join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { parse } from 'csv-parse/sync';
import type { Role } from '../columns';
import { rolesOf } from '../columns';
import { DataError, reason, show } from '../errors';
import { dialectOf } from '../formats/dialect';
import { isRecord } from '../formats/row';
import type { Layout } from '../layout';
import { cellPlaces, csvCell } from './csv-cell';
import type { JsonPath } from './json-place';
import { placeInJson } from './json-place';

export interface TextEdit {
  /** `source` of the example */
  source: string;
  role: Exclude<Role, 'image'>;
  /** which of several captions or answers; 0 for one */
  index: number;
  /** the text that is there: another one means that the file was changed meanwhile */
  from: string;
  to: string;
}

/**
 * Replaces `from` by `to` in the row's file.
 * @param check gets the file before it is read, and throws if it may not be changed; symbolic links are followed
 * @throws DataError for an empty text, a file of a kind that cannot be edited, or a row that no longer has `from`
 */
export async function editText(
  edit: TextEdit,
  layout: Layout = {},
  check?: (file: string) => Promise<unknown>,
): Promise<void> {
  if (edit.to.trim() === '') throw new DataError(`${edit.source}: expected words, found an empty text`);
  const [, table, line] = /^(.*):(\d+)$/s.exec(edit.source) ?? [];
  const file = table ?? sidecarOf(edit);
  await check?.(file);
  const text = await utf8(file);
  const made = table === undefined ? inSidecar(text, edit) : inTable(text, file, Number(line), edit, layout);
  await replace(await realpath(file), made);
}

function inTable(text: string, file: string, line: number, edit: TextEdit, layout: Layout): string {
  const kind = extname(file).toLowerCase();
  if (kind === '.csv' || kind === '.tsv') return inCsv(text, file, line, edit, layout);
  if (['.jsonl', '.ndjson'].includes(kind) && !/^\s*\[/.test(text.replace(/^\ufeff/, '')))
    return inLine(text, line, edit, layout);
  if (['.json', '.jsonl'].includes(kind)) return inJson(text, line, edit, layout);
  throw cannot(edit.source, 'only .jsonl, .json, .csv, .tsv and texts beside pictures can be edited here');
}

const cannot = (source: string, why: string) => new DataError(`${source}: cannot be edited: ${why}`);
const gone = ({ source, from }: TextEdit, found: unknown) =>
  new DataError(
    `${source}: expected ${show(from)}, found ${show(found ?? 'nothing')}: the file was changed meanwhile; load the data again`,
  );

async function utf8(file: string): Promise<string> {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(await readFile(file));
  } catch (error) {
    if (error instanceof TypeError) throw cannot(file, 'it is not UTF-8; save it as UTF-8 first');
    throw new DataError(`${file}: cannot be read (${reason(error)})`);
  }
}

/** JSON Lines: row `line`, counted from 1. */
function inLine(text: string, line: number, edit: TextEdit, layout: Layout): string {
  const lines = text.split('\n');
  const old = lines[line - 1] ?? '';
  const begin = /^\ufeff?\s*/.exec(old)![0];
  const row = old.slice(begin.length);
  lines[line - 1] = begin + replaced(row, pathIn(parsed(row, edit), edit, layout), edit);
  return lines.join('\n');
}

function parsed(text: string, edit: TextEdit): unknown {
  try {
    return JSON.parse(text.replace(/^\ufeff/, ''));
  } catch {
    throw gone(edit, 'no JSON');
  }
}

/** A list of rows, COCO captions, or Karpathy's splits. */
function inJson(text: string, line: number, edit: TextEdit, layout: Layout): string {
  const bom = text.startsWith('\ufeff') ? '\ufeff' : '';
  const json = text.slice(bom.length);
  const content = parsed(json, edit);
  const i = line - 1;
  if (Array.isArray(content)) return bom + replaced(json, [i, ...pathIn(content[i], edit, layout)], edit);
  const { images, annotations } = isRecord(content) ? content : {};
  if (!Array.isArray(images) || edit.role !== 'caption' || !isRecord(images[i]))
    throw cannot(edit.source, 'expected a list of rows, or COCO captions');
  const image: Record<string, unknown> = images[i];
  if (Array.isArray(image.sentences)) {
    const raw = isRecord(image.sentences[edit.index]) ? ['raw'] : [];
    return bom + replaced(json, ['images', i, 'sentences', edit.index, ...raw], edit);
  }
  const own = (Array.isArray(annotations) ? annotations : []).flatMap((one: unknown, at) =>
    isRecord(one) && one.image_id === image.id ? [at] : [],
  );
  return bom + replaced(json, ['annotations', own[edit.index] ?? -1, 'caption'], edit);
}

/** The text's place in a row: its column, and for one of several its place in the list. */
function pathIn(row: unknown, edit: TextEdit, layout: Layout): JsonPath {
  if (!isRecord(row)) throw gone(edit, row);
  const column = rolesOf(row, layout)[edit.role];
  if (column === undefined)
    throw cannot(edit.source, `it has no column of the ${edit.role}; chats cannot be edited`);
  const value = row[column];
  if (!Array.isArray(value)) return [column];
  const item: unknown = value[edit.index];
  const key = isRecord(item) && ['answer', 'raw', 'caption'].find((name) => typeof item[name] === 'string');
  return key ? [column, edit.index, key] : [column, edit.index];
}

/** JSON with another text at a path, and nothing else changed. */
function replaced(json: string, path: JsonPath, edit: TextEdit): string {
  const place = placeInJson(json, path);
  const old: unknown = place && JSON.parse(json.slice(...place));
  if (!place || old !== edit.from) throw gone(edit, old);
  const made = json.slice(0, place[0]) + JSON.stringify(edit.to) + json.slice(place[1]);
  const back = placeInJson(made, path)!;
  const restored = made.slice(0, back[0]) + JSON.stringify(edit.from) + made.slice(back[1]);
  if (!isDeepStrictEqual(JSON.parse(restored), JSON.parse(json)))
    throw cannot(edit.source, 'its JSON is ambiguous');
  return made;
}

/** `line` is the last one of the record, as csv-parse counts them. */
function inCsv(text: string, file: string, line: number, edit: TextEdit, layout: Layout): string {
  const { delimiter, separatorLine, columns } = dialectOf(text.slice(0, 1 << 20), file, layout);
  if (columns !== undefined) throw cannot(edit.source, 'the file has no line with the names of its columns');
  const read = (all: string) => records(all, delimiter, separatorLine);
  const rows = read(text);
  const header = rows[0]?.record ?? [];
  const at = rows.findIndex(({ info }) => info.lines === line);
  const { record, end, raw } = rows[at] ?? {};
  if (!record || at === 0) throw gone(edit, 'no such row');
  const values = Object.fromEntries(
    header.flatMap((name, i) => (record[i] === '' ? [] : [[name.trim(), record[i]]])),
  );
  const column = header.findIndex((name) => name.trim() === rolesOf(values, layout)[edit.role]);
  if (column < 0) throw cannot(edit.source, `it has no column of the ${edit.role}`);
  if (record[column] !== edit.from) throw gone(edit, record[column]);
  const start = end - raw.length;
  const place = cellPlaces(raw.replace(/\r?\n$/, ''), delimiter)[column];
  const cell = raw.slice(...place);
  const made =
    text.slice(0, start + place[0]) + csvCell(edit.to, delimiter, cell) + text.slice(start + place[1]);
  const expected = rows.map((row, i) => (i === at ? record.with(column, edit.to) : row.record));
  if (
    !isDeepStrictEqual(
      read(made).map((row) => row.record),
      expected,
    )
  )
    throw cannot(edit.source, 'the quotes of the file are ambiguous');
  return made;
}

interface CsvRecord {
  record: string[];
  info: { lines: number };
  raw: string;
  /** in characters of the text */
  end: number;
}

function records(text: string, delimiter: string, separatorLine: boolean): CsvRecord[] {
  const options = {
    bom: true,
    delimiter,
    info: true,
    raw: true,
    relax_column_count: true,
    skip_empty_lines: true,
  };
  let rows: Omit<CsvRecord, 'end'>[];
  try {
    rows = parse(text, { ...options, from_line: separatorLine ? 2 : 1 }) as unknown as Omit<
      CsvRecord,
      'end'
    >[];
  } catch (error) {
    throw new DataError(
      `the file's quotes are not those of CSV (${reason(error)}); it cannot be edited here`,
    );
  }
  let from = 0;
  return rows.map((row) => {
    const end = text.indexOf(row.raw, from) + row.raw.length;
    from = end;
    return { ...row, end };
  });
}

/** The text file beside a picture. */
function sidecarOf(edit: TextEdit): string {
  const picture = edit.source;
  const stem = picture.slice(0, picture.length - extname(picture).length);
  const file = ['.caption', '.txt']
    .flatMap((end) => [stem + end, picture + end])
    .find((path) => existsSync(path));
  if (file === undefined || edit.role !== 'caption')
    throw cannot(picture, 'it has no .txt or .caption beside it');
  return file;
}

/** Each line with words is a text. */
function inSidecar(text: string, edit: TextEdit): string {
  if (/[\r\n]/.test(edit.to))
    throw cannot(edit.source, 'each line of its file is a caption; write it in one line');
  const parts = text.split(/(\r\n|\n|\r)/);
  const at = parts.flatMap((part, i) => (part.replace(/^\ufeff/, '').trim() === '' ? [] : [i]))[edit.index];
  const old = at === undefined ? undefined : parts[at].replace(/^\ufeff/, '').trim();
  if (old !== edit.from) throw gone(edit, old);
  parts[at!] = parts[at!].replace(old, () => edit.to.trim());
  return parts.join('');
}

/** Writes beside the file, flushes, and renames; the file keeps its permissions. */
async function replace(file: string, text: string): Promise<void> {
  const { mode } = await stat(file);
  const draft = join(dirname(file), `.${basename(file)}.${process.pid}.tmp`);
  try {
    const handle = await open(draft, 'wx', mode);
    try {
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(draft, file);
  } catch (error) {
    await rm(draft, { force: true });
    throw new DataError(`${file}: cannot be written (${reason(error)}); it is unchanged`);
  }
}

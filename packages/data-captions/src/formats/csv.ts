/** CSV in the dialects and encodings that spreadsheets, pandas and public data sets have, by csv-parse. */
import { createReadStream } from 'node:fs';
import { dirname } from 'node:path';
import { Readable } from 'node:stream';
import type { CsvError, Info, Options } from 'csv-parse';
import { parse } from 'csv-parse';
import type { Layout } from '../layout';
import type { Problem } from '../errors';
import { DataError, reason, show } from '../errors';
import { base64At } from '../image-name';
import { takeBase64 } from './base64';
import type { Dialect } from './dialect';
import { dialectOf } from './dialect';
import { headOf, isUtf8, readText } from './encoding';
import { listOf } from './python-list';
import type { ReadRows, Row } from './row';

/** Characters of a row; a picture in base64 may be large. */
const MOST_CHARACTERS = 64 << 20;
const HEAD = 1 << 20;

/** Where the rows come from: the file itself, or its text in UTF-8. */
interface Source {
  file: string;
  open: () => Readable;
  dialect: Dialect;
  /** Byte offsets are those of the file. */
  seekable: boolean;
}

/**
 * Reads CSV: separator `,` `;` tab or `|` (told from the first line, or Excel's `sep=`), encoding UTF-8, UTF-16, Windows-1252 or
 * Mac Roman, any line end, quotes as in RFC 4180 or literal where a file has none. JSON, Python and numpy lists become lists;
 * empty cells are left out. Lines with too few or too many cells are problems.
 * @throws DataError when the file cannot be read
 */
export async function readCsv(file: string, layout: Layout = {}): Promise<ReadRows> {
  try {
    const source = await sourceOf(file, layout);
    const quoted = await parseAll(source, '"');
    if (quoted.strayQuotes === 0) return quoted;
    const literal = await parseAll(source, null);
    return literal.wrapped <= quoted.strayQuotes ? literal : quoted;
  } catch (error) {
    if (error instanceof DataError) throw error;
    throw new DataError(`${file}: cannot be read as CSV (${show(reason(error))})`);
  }
}

async function sourceOf(file: string, layout: Layout): Promise<Source> {
  if (await isUtf8(file)) {
    const head = decodeHead(await headOf(file, HEAD));
    return {
      file,
      open: () => createReadStream(file),
      dialect: dialectOf(head, file, layout),
      seekable: true,
    };
  }
  const text = await readText(file);
  const dialect = dialectOf(text.slice(0, HEAD), file, layout);
  return { file, open: () => Readable.from([Buffer.from(text)]), dialect, seekable: false };
}

/** The head may end inside a character. */
const decodeHead = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

interface Parsed extends ReadRows {
  /** Rows with quotes that do not fit. */
  strayQuotes: number;
  /** Cells in quotes, when quotes are literal. */
  wrapped: number;
}

async function parseAll(source: Source, quote: '"' | null): Promise<Parsed> {
  const { file, dialect } = source;
  const out: Parsed = { rows: [], problems: [], strayQuotes: 0, wrapped: 0 };
  const bad = (line: number | string, expected: string, found: string) =>
    out.problems.push({ source: `${file}:${line}`, expected, found });
  const bases = [dirname(file)];
  let header = dialect.columns;
  for await (const { record, info, raw } of records(source, quote, (error) => {
    out.strayQuotes += 1;
    bad(String(error.lines), 'quotes around whole cells, closed in the same row', plain(error));
  })) {
    if (!header) {
      header = headerOf(record, file);
      continue;
    }
    if (record.every((cell) => cell === '')) continue;
    const extra = record.length > header.length && record.slice(header.length).some((cell) => cell !== '');
    if (record.length < header.length || extra) {
      bad(info.lines, `${count(header.length)}, as in the header`, `${count(record.length)}`);
    } else if (record.some((cell) => swallowed(cell, dialect.delimiter))) {
      out.strayQuotes += 1;
      bad(info.lines, 'a quote that ends in its row', 'one that goes on into the next rows');
    } else {
      if (quote === null) out.wrapped += record.filter((cell) => /^".*"$/.test(cell)).length;
      out.rows.push(
        rowOf(source, header, record, { line: info.lines, end: info.bytes, raw, bases }, out.problems),
      );
    }
  }
  return out;
}

const count = (cells: number) => `${cells} cell${cells === 1 ? '' : 's'}`;
const plain = (error: CsvError) =>
  error.code === 'CSV_QUOTE_NOT_CLOSED' ? 'a quote that is never closed' : show(reason(error));

/** Whether an unclosed quote made later rows part of a cell. */
const swallowed = (cell: string, delimiter: string) =>
  cell.includes('\n') &&
  cell
    .split('\n')
    .slice(1)
    .some((line) => PICTURE_FIRST.test(line.split(delimiter, 1)[0]) && line.includes(delimiter));
const PICTURE_FIRST = /^"?[^"]{1,300}\.(?:jpe?g|png|webp|gif|bmp|tiff?)"?(?:#\d+)?$/i;

function headerOf(cells: string[], file: string): string[] {
  const names = cells.map((name) => name.replace(/^\ufeff/, '').trim());
  const seen = new Set<string>();
  for (const name of names) {
    if (name !== '' && seen.has(name))
      throw new DataError(`${file}:1: expected each column once, found ${show(name)} twice; rename one`);
    seen.add(name);
  }
  return names;
}

type Parsing = { record: string[]; info: Info; raw?: string };

async function* records(
  source: Source,
  quote: '"' | null,
  skipped: (error: CsvError) => void,
): AsyncGenerator<Parsing> {
  const parser = parse({
    bom: true,
    delimiter: source.dialect.delimiter,
    from_line: source.dialect.separatorLine ? 2 : 1,
    info: true,
    max_record_size: MOST_CHARACTERS,
    on_skip: (error: CsvError | undefined) => void (error && skipped(error)),
    quote,
    raw: source.seekable,
    relax_column_count: true,
    relax_quotes: true,
    skip_empty_lines: true,
    skip_records_with_error: true,
    trim: source.dialect.delimiter === '|',
  } as Options);
  const input = source.open();
  input.on('error', (error) => parser.destroy(error));
  input.pipe(parser);
  yield* parser as AsyncIterable<Parsing>;
}

interface Place {
  line: number;
  /** Byte offset of the row's end. */
  end: number;
  raw: string | undefined;
  bases: string[];
}

function rowOf(source: Source, header: string[], record: string[], place: Place, problems: Problem[]): Row {
  const { file, dialect } = source;
  const row: Row = { source: `${file}:${place.line}`, values: {}, bases: place.bases };
  const entries = header.flatMap((name, i): [string, unknown][] => {
    if (name === '' || record[i] === '') return [];
    const cell = dialect.clean ? dialect.clean(name, record[i]) : record[i];
    return [[name, typeof cell === 'string' ? (listOf(cell) ?? cell) : cell]];
  });
  const { values, pictures } = takeBase64(Object.fromEntries(entries));
  row.values = values;
  if (pictures.length === 1 && place.raw !== undefined) {
    const { raw, end } = place;
    const newline = dialect.crlf && raw.endsWith('\r') ? 1 : 0; // csv-parse counts the \n and leaves it out of `raw`
    const start =
      end - newline - Buffer.byteLength(raw) + Buffer.byteLength(raw.slice(0, raw.indexOf(pictures[0])));
    row.image = base64At(file, start, Buffer.byteLength(pictures[0]));
  } else if (pictures.length > 0) {
    const found =
      pictures.length > 1 ? `${pictures.length} base64 pictures` : 'a base64 picture in another encoding';
    problems.push({ source: row.source, expected: 'one picture in a row of UTF-8 text', found });
  }
  return row;
}

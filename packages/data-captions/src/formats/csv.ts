/** CSV and TSV with a header line, by csv-parse. */
import { createReadStream } from 'node:fs';
import { dirname } from 'node:path';
import type { CsvError, Info, Options } from 'csv-parse';
import { parse } from 'csv-parse';
import type { Problem } from '../errors';
import { DataError, reason, show } from '../errors';
import type { ReadRows } from './row';

/**
 * Reads a comma- or tab-separated file (.tsv); a byte order mark is allowed, quotes as in RFC 4180.
 * Cells with a JSON list (`["one", "two"]`) become lists; empty cells are left out.
 * Lines with too few or too many cells are returned as problems.
 * @throws DataError when the file cannot be read
 */
export async function readCsv(file: string): Promise<ReadRows> {
  const rows: ReadRows['rows'] = [];
  const problems: Problem[] = [];
  const skipped = (error: CsvError | undefined) => {
    if (!error) return;
    const line = 'lines' in error ? String(error.lines) : '?';
    problems.push({ source: `${file}:${line}`, expected: 'a row like the header', found: reason(error) });
  };
  const parser = parse({
    bom: true,
    columns: header(file),
    delimiter: /\.tsv$/i.test(file) ? '\t' : ',',
    info: true,
    max_record_size: MOST_CHARACTERS,
    on_skip: skipped,
    skip_empty_lines: true,
    skip_records_with_error: true,
  } as Options);
  const bases = [dirname(file)];
  const input = createReadStream(file);
  input.on('error', (error) => parser.destroy(error));
  input.pipe(parser);
  try {
    for await (const { record, info } of parser as AsyncIterable<{
      record: Record<string, string>;
      info: Info;
    }>)
      rows.push({ source: `${file}:${info.lines}`, values: cells(record), bases });
  } catch (error) {
    if (error instanceof DataError) throw error;
    throw new DataError(
      `${file}: cannot be read as ${/\.tsv$/i.test(file) ? 'TSV' : 'CSV'} (${reason(error)})`,
    );
  }
  return { rows, problems };
}

/** Otherwise an unclosed quote would swallow the rest of the file. */
const MOST_CHARACTERS = 1_000_000;

const header = (file: string) => (names: string[]) => {
  const trimmed = names.map((name) => name.trim());
  const repeated = trimmed.find((name, i) => trimmed.indexOf(name) !== i);
  if (repeated !== undefined)
    throw new DataError(`${file}:1: expected each column once, found ${show(repeated)} twice; rename one`);
  return trimmed;
};

function cells(record: Record<string, string>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(record)
      .filter(([, cell]) => cell !== '')
      .map(([name, cell]) => [name, list(cell) ?? cell]),
  );
}

function list(cell: string): unknown[] | undefined {
  if (!/^\s*\[.*\]\s*$/s.test(cell)) return undefined;
  try {
    return JSON.parse(cell) as unknown[];
  } catch {
    return undefined; // ordinary text in brackets
  }
}

/**
 * Measured tables in documents. All figures are in `docs/measurements.json`; documents have marked places, which are filled
 * from it:
 *
 *     <!-- measured: NAME/TABLE -->            … the table, its date and its command …   <!-- /measured -->
 *     <!--= NAME/TABLE | ROW | COLUMN -->      … one figure …                            <!--/=-->
 */
import { stripVTControlCharacters } from 'node:util';
import { markdownTable } from './table';

export interface Table {
  head: string[];
  rows: string[][];
}

export interface Measurement {
  /** The shell command that measures it, run in the root of the repository. */
  command: string;
  /** Day, as 2026-11-24. */
  date: string;
  machine: string;
  /** By the title printed above each table, as a slug. */
  tables: Record<string, Table>;
}

export type Measurements = Record<string, Measurement>;

/** The tables in a command's output: Markdown, or the aligned columns of `blip2 fit`. Keys are slugs of their headings. */
export function tablesIn(output: string): Record<string, Table> {
  const tables: Record<string, Table> = {};
  let title = 'table';
  let lines: string[] = [];
  for (const line of [...stripVTControlCharacters(output).split('\n'), '']) {
    if (line.startsWith('### ')) title = slug(line.slice(4));
    const inside = /^\|.*\|$/.test(line) || (lines.length === 0 ? /^ {2,}exact\b/ : /^\S.* {2}\S/).test(line);
    if (inside) lines.push(line);
    else if (lines.length > 0) {
      tables[title] = tableOf(lines);
      lines = [];
    }
  }
  return tables;
}

function tableOf(lines: readonly string[]): Table {
  const markdown = lines[0].startsWith('|');
  const cells = (line: string) =>
    markdown ? line.slice(1, -1).split('|') : line.replace(/^ +/, '  ').split(/ {2,}/);
  const rows = lines
    .filter((line) => !/^\|[\s:|-]+\|$/.test(line))
    .map((line) => cells(line).map((cell) => cell.trim()));
  const width = Math.max(...rows.map((row) => row.length));
  const [head, ...body] = rows.map((row) => [...row, ...Array<string>(width - row.length).fill('')]);
  return { head, rows: body };
}

const slug = (title: string) =>
  title
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '');

/**
 * The document with all marked places filled.
 * @throws Error for a mark whose measurement, row or column does not exist, and for one without an end
 */
export function render(markdown: string, measurements: Measurements): string {
  const blocks = /<!-- measured: (.+?) -->[\s\S]*?<!-- \/measured -->/g;
  const figures = /<!--= (.+?) \| (.*?) \| (.+?) -->.*?<!--\/=-->/g;
  const marks = (pattern: RegExp) => [...markdown.matchAll(pattern)].length;
  if (marks(blocks) !== marks(/<!-- measured: /g) || marks(figures) !== marks(/<!--= /g))
    throw new Error('expected an end for every mark: <!-- /measured --> or, on the same line, <!--/=-->');
  return markdown
    .replace(blocks, (_, path: string) => {
      const { table, command, date } = lookUp(measurements, path);
      const how = `Measured on ${date}: \`${command}\`.`;
      return `<!-- measured: ${path} -->\n\n${markdownTable(table.head, table.rows)}\n\n${how}\n\n<!-- /measured -->`;
    })
    .replace(figures, (_, path: string, row: string, column: string) => {
      const { table } = lookUp(measurements, path);
      const figure = table.rows.find(([label]) => label === row)?.[table.head.indexOf(column)];
      if (!figure) throw new Error(`measurement ${path}: expected a row "${row}" with a column "${column}"`);
      return `<!--= ${path} | ${row} | ${column} -->${figure}<!--/=-->`;
    });
}

function lookUp(measurements: Measurements, path: string): Measurement & { table: Table } {
  const [name, title] = path.split('/');
  const measurement = measurements[name];
  const table = measurement?.tables[title];
  if (!table) {
    const known = Object.entries(measurements).flatMap(([n, { tables }]) =>
      Object.keys(tables).map((t) => `${n}/${t}`),
    );
    throw new Error(`expected a measured table, found "${path}"; there are: ${known.join(', ')}`);
  }
  return { ...measurement, table };
}

/** The final table of a run: one row per model or control, with the same columns. */
import { percent } from './numbers';
import type { Score } from './score';

/** The name of the first score: the share of texts that are word for word one of their references. */
export const EXACT = 'exact match';

export interface ResultRow {
  name: string;
  /** `model` is the fine-tuned one, `base` the same before training, `control` a control */
  kind: 'model' | 'base' | 'control';
  exact: number;
  parts: Record<string, number>;
  /** share of predictions that the parts pattern matches */
  parsed?: number;
  note?: string;
}

export interface ResultsTable {
  rows: ResultRow[];
  /** the name of the first score, `exact`; without it EXACT */
  score?: string;
  /** names of the parts, in the order of the columns */
  parts: string[];
  /** number of test examples: pictures, or pictures with a question */
  n: number;
  /** number of rows that they were read from; absent in results of older versions */
  data_rows?: number;
  /** number of different pictures; absent in results of older versions */
  pictures?: number;
  /** number of different texts that are searched */
  texts?: number;
  /** which examples: `test`, `validation`… */
  split?: string;
}

/** `3 examples (15 rows)` */
export const sizeOf = ({ n, data_rows = n, pictures = n, texts }: ResultsTable): string =>
  counted(n, 'example') +
  besides(n, data_rows, pictures) +
  (texts === undefined ? '' : `, ${counted(texts, 'text')}`);

/** ` (15 rows, 1 picture)`: rows and pictures where there are not as many as examples. */
export function besides(n: number, rows: number, pictures: number): string {
  const others: string[] = [];
  if (rows !== n) others.push(counted(rows, 'row'));
  if (pictures !== n) others.push(counted(pictures, 'picture'));
  return others.length > 0 ? ` (${others.join(', ')})` : '';
}

const counted = (n: number, what: string) => `${n.toLocaleString('en')} ${what}${n === 1 ? '' : 's'}`;

/** A score as a row of the table. */
export function resultRow(name: string, kind: ResultRow['kind'], score: Score, note?: string): ResultRow {
  const { exact, parts, parsed } = score;
  return { name, kind, exact, parts, parsed, ...(note ? { note } : {}) };
}

/** The table as aligned plain text; `mark` may colour a whole line by its row. */
export function formatTable(
  table: ResultsTable,
  mark: (line: string, row?: ResultRow) => string = (line) => line,
): string {
  const lines = [
    ['', table.score ?? EXACT, ...table.parts, ''],
    ...table.rows.map((row) => [
      row.name,
      percent(row.exact),
      ...table.parts.map((part) => percent(row.parts[part])),
      row.note ?? '',
    ]),
  ];
  const widths = lines[0].map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  const aligned = lines.map((line) =>
    line
      .map((cell, column) =>
        isText(column, line) ? cell.padEnd(widths[column]) : cell.padStart(widths[column]),
      )
      .join('  ')
      .trimEnd(),
  );
  return aligned.map((line, i) => mark(line, table.rows[i - 1])).join('\n');
}

/** Names and notes are aligned to the left, numbers to the right. */
function isText(column: number, line: string[]): boolean {
  return column === 0 || column === line.length - 1;
}

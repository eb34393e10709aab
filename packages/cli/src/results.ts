/** Prints the results of an evaluation on a terminal. */
import { figureTables, formatTable, sizeOf } from '@blip2/trainer';
import type { Figures, ResultsTable } from '@blip2/trainer';
import { paint } from './printable';
import { columns } from './ui';

export function paintTable(table: ResultsTable): string {
  const title = `${sizeOf(table)}${table.split ? ` of ${table.split}` : ''}`;
  const body = formatTable(table, (line, row) => {
    if (!row) return paint.dim(line);
    return row.kind === 'model' ? paint.bold(line) : line;
  });
  return `${paint.dim(title)}\n${body}`;
}

/** The usual metrics, and signs of degenerate captions, in per cent. */
export function describeFigures(figures: Figures): string {
  const { scores, signs } = figureTables(figures);
  return `${columns(scores)}\n\n${columns(signs)}`;
}

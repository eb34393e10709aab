/** The results table on a terminal. */
import { formatTable } from '@blip2/trainer';
import type { ResultsTable } from '@blip2/trainer';
import type { Ui } from './ui';

export function paintTable(table: ResultsTable, { paint }: Ui): string {
  const title = `${table.n.toLocaleString('en')} examples${table.split ? ` of ${table.split}` : ''}`;
  const body = formatTable(table, (line, row) => {
    if (!row) return paint.dim(line);
    return row.kind === 'model' ? paint.bold(line) : line;
  });
  return `${paint.dim(title)}\n${body}`;
}

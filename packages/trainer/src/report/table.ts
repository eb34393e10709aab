/** A table that is readable on a phone: there, each row is a block, and each cell has the name of its column. */
import type { Html } from './html';
import { html } from './html';

export interface Row {
  name: string;
  cells: (string | Html)[];
  /** class of the row */
  kind?: string;
}

/** @param head the names of the columns, that of the rows' names first. Roles stay when rows become blocks. */
export function table([first, ...columns]: readonly string[], rows: readonly Row[]): Html {
  const cell = (content: string | Html, i: number) =>
    html`<td role="cell" data-label="${columns[i]}">
      ${columns[i] === 'note' ? html`<span class="note">${content}</span>` : content}
    </td>`;
  return html`<div class="wide ${isDense(columns, rows) && 'dense'}" tabindex="0">
    <table role="table">
      <thead role="rowgroup">
        <tr role="row">
          ${[first, ...columns].map(columnHeader)}
        </tr>
      </thead>
      <tbody role="rowgroup">
        ${rows.map(
          ({ name, cells, kind = '' }) =>
            html`<tr role="row" class="${kind}">
              <th role="rowheader" scope="row">${name}</th>
              ${cells.map(cell)}
            </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

/** A table of texts, whose first line has the names of the columns. */
export function textTable(
  [head, ...lines]: readonly string[][],
  kindOf: (name: string) => string = () => '',
): Html {
  return table(
    head,
    lines.map(([name, ...cells]) => ({ name, cells, kind: kindOf(name) })),
  );
}

/** Many columns, or long cells: they wrap, and on a phone each has a line of its own. */
function isDense(columns: readonly string[], rows: readonly Row[]): boolean {
  const longest = rows.flatMap(({ cells }) =>
    cells.flatMap((cell, i) => (columns[i] === 'note' ? [] : String(cell).replace(/<[^>]*>/g, '').length)),
  );
  return columns.length > 6 || Math.max(...longest) > 12;
}

const columnHeader = (name: string) =>
  html`<th role="columnheader" scope="col" class="${name === 'note' ? 'note' : ''}">${name}</th>`;

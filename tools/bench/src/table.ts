/** Markdown tables and the formats of their numbers. */

export function median(values: readonly number[]): number {
  if (values.length === 0) throw new Error('median: expected at least one value');
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Columns padded to one width, the first left, the others right aligned, as prettier formats them. */
export function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  for (const row of rows)
    if (row.length !== head.length)
      throw new Error(`table: expected ${head.length} cells, found ${row.length}: ${row.join(' | ')}`);
  const widths = head.map((_, i) => Math.max(4, ...[head, ...rows].map((row) => [...row[i]].length)));
  const pad = (cell: string, i: number) => {
    const space = ' '.repeat(widths[i] - [...cell].length);
    return i === 0 ? cell + space : space + cell;
  };
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  const rule = widths.map((width, i) => (i === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`));
  return [line(head.map(pad)), line(rule), ...rows.map((row) => line(row.map(pad)))].join('\n');
}

/** Three significant digits, without an exponent. */
export function digits(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  if (Math.abs(value) >= 100) return value.toFixed(0);
  return value.toFixed(Math.abs(value) >= 10 ? 1 : Math.abs(value) >= 1 ? 2 : 3);
}

export const gigabytes = (bytes: number) => (bytes / 1e9).toFixed(1);

/** Speed relative to the baseline: 2 decimals, such as `2.51x`. */
export const times = (ratio: number) => `${ratio.toFixed(2)}x`;

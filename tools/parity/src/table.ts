/** Rows of checks as text. */
import type { Row } from './run-case';

const number = (x: number) => (x === 0 ? 'exact' : x === Infinity ? '∞' : x.toExponential(1));

/** One line per check: case, rung, name, error, tolerance, the reference's own float32 error, verdict. */
export function formatRows(rows: readonly Row[], colour = false): string {
  const paint = (code: number, text: string) => (colour ? `\x1b[${code}m${text}\x1b[0m` : text);
  const lines = rows.map((row) => [
    row.case,
    row.rung,
    row.name,
    number(row.error),
    number(row.tolerance),
    number(row.noise),
    row.ok ? 'green' : 'red',
    row.detail,
  ]);
  const head = ['case', 'rung', 'check', 'error', 'tolerance', 'HF float32', 'verdict', 'worst at'];
  const widths = head.map((title, i) => Math.max(title.length, ...lines.map((line) => line[i].length)));
  const text = (line: string[]) =>
    line
      .map((cell, i) => (i === 7 ? cell : cell.padEnd(widths[i])))
      .join('  ')
      .trimEnd();
  return [
    paint(2, text(head)),
    ...lines.map((line, i) =>
      text(line).replace(
        / {2}(green|red)\b/,
        (_, verdict: string) => `  ${paint(rows[i].ok ? 32 : 31, verdict)}`,
      ),
    ),
  ].join('\n');
}

/** One problem in the data: its place, the expected value, and the value found. */
export interface Problem {
  /** `file:line`, or only the file. */
  source: string;
  expected: string;
  found: string;
}

const SHOWN = 20;

/** The number of rows that have problems. */
export const countRows = (problems: readonly Problem[]): number =>
  new Set(problems.map(({ source }) => source)).size;

/** Sorted by file and line. */
export const inOrder = <P extends Problem>(problems: P[]): P[] =>
  problems.sort((a, b) => a.source.localeCompare(b.source, 'en', { numeric: true }));

/** One line for each row, with all its problems. */
export function problemLines(problems: readonly Problem[]): string[] {
  const rows = new Map<string, string[]>();
  for (const { source, expected, found } of problems) {
    const what = `expected ${expected}, found ${found}`;
    const row = rows.get(source);
    if (!row) rows.set(source, [what]);
    else if (!row.includes(what)) row.push(what);
  }
  return [...rows].map(([source, all]) => `${source}: ${all.join('; ')}`);
}

/**
 * Bad input data. The message lists the first 20 rows and the number of the others; `problems` contains all.
 * Thrown for everything that the user can fix by changing files or options.
 */
export class DataError extends Error {
  override readonly name = 'DataError';
  readonly problems: readonly Problem[];

  constructor(message: string, problems: readonly Problem[] = []) {
    const rows = problemLines(problems);
    const lines = rows.slice(0, SHOWN).map((line) => `  ${line}`);
    if (rows.length > SHOWN) lines.push(`  … and ${rows.length - SHOWN} more`);
    super([message, ...lines].join('\n'));
    this.problems = problems;
  }
}

/** A value for an error message: JSON, cut to 60 characters. */
export function show(value: unknown): string {
  if (value === undefined) return 'nothing';
  const text = asJson(value);
  return text.length > 60 ? text.slice(0, 59) + '…' : text;
}

function asJson(value: unknown): string {
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return `${Array.isArray(value) ? 'a list' : `a ${typeof value}`} nested too deeply to show`;
  }
}

/** The message of anything that was thrown, on one line. */
export function reason(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.replace(/\s+/g, ' ').trim();
}

/** One problem in the data: its place, the expected value, and the value found. */
export interface Problem {
  /** `file:line`, or only the file. */
  source: string;
  expected: string;
  found: string;
}

const SHOWN = 20;

/**
 * Bad input data. The message lists the first 20 problems and the number of the others; `problems` contains all.
 * Thrown for everything that the user can fix by changing files or options.
 */
export class DataError extends Error {
  override readonly name = 'DataError';
  readonly problems: readonly Problem[];

  constructor(message: string, problems: readonly Problem[] = []) {
    const lines = problems
      .slice(0, SHOWN)
      .map((p) => `  ${p.source}: expected ${p.expected}, found ${p.found}`);
    if (problems.length > SHOWN) lines.push(`  … and ${problems.length - SHOWN} more`);
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

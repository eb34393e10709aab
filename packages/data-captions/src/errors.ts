/** One problem in the data: its place, the expected value, and the value found. */
export interface Problem {
  /** `file:line`, or only the file. */
  source: string;
  expected: string;
  found: string;
}

const SHOWN = 20;

/** An error that already has the form "…: expected …, found …", as it is; another one as what was found instead of `expected`. */
export function problemFrom(source: string, expected: string, error: string): Problem {
  const own = /^(.*?)expected (.+?), found (.+)$/s.exec(error);
  return own ? { source, expected: own[2], found: own[1] + own[3] } : { source, expected, found: error };
}

/** The number of rows that have problems. */
export const countRows = (problems: readonly Problem[]): number =>
  new Set(problems.map(({ source }) => source)).size;

/** Sorted by file and line. */
export const inOrder = <P extends Problem>(problems: P[]): P[] =>
  problems.sort((a, b) => a.source.localeCompare(b.source, 'en', { numeric: true }));

/** Rows that all have the same problems, in one line. */
interface Same {
  what: string;
  sources: string[];
}

/**
 * One line for each row with all its problems; rows with the same problems share a line. After `most` lines, one with the
 * number of the other rows, and `advice`.
 */
export function problemLines(problems: readonly Problem[], most = Infinity, advice = ''): string[] {
  const all = sameRows(problems);
  const lines = all.slice(0, most).map(({ what, sources }) => `${placesOf(sources)}: ${what}`);
  const left = all.slice(most).reduce((sum, { sources }) => sum + sources.length, 0);
  return left > 0 ? [...lines, `… and ${left.toLocaleString('en')} more${advice}`] : lines;
}

function sameRows(problems: readonly Problem[]): Same[] {
  const rows = new Map<string, Set<string>>();
  for (const { source, expected, found } of problems) {
    const row = rows.get(source) ?? new Set();
    rows.set(source, row.add(`expected ${expected}, found ${found}`));
  }
  const lines = new Map<string, Same>();
  for (const [source, all] of rows) {
    const what = [...all].join('; ');
    const line = lines.get(what);
    if (line) line.sources.push(source);
    else lines.set(what, { what, sources: [source] });
  }
  return [...lines.values()];
}

/** The first place, and how many more there are. */
function placesOf([first, ...more]: string[]): string {
  if (more.length === 0) return first;
  const last = shortPlace(more[more.length - 1], first);
  if (more.length === 1) return `${first} and ${last}`;
  return `${first} and ${more.length.toLocaleString('en')} more rows (the last: ${last})`;
}

/** A place without the file that it has in common with another. */
function shortPlace(place: string, other: string): string {
  const file = place.slice(0, place.lastIndexOf(':') + 1);
  return file !== '' && other.startsWith(file) ? place.slice(file.length) : place;
}

/**
 * Bad input data. The message lists the problems of at most 20 rows and the number of the others; `problems` contains all.
 * Thrown for everything that the user can fix by changing files or options.
 */
export class DataError extends Error {
  override readonly name = 'DataError';
  readonly problems: readonly Problem[];

  constructor(message: string, problems: readonly Problem[] = []) {
    super([message, ...problemLines(problems, SHOWN).map((line) => `  ${line}`)].join('\n'));
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

/** The few checks a settings file needs, each answering with what it expected. */

/** Says what is expected when `value` is not that, and nothing when it is. */
export type Check = (value: unknown) => string | undefined;
/** A key that ends in `?` may be left out. */
export interface ConfigSchema {
  [key: string]: Check | ConfigSchema;
}

/** Every problem of one settings file or command line, in one error. */
export class ConfigError extends Error {
  constructor(
    readonly where: string,
    readonly problems: string[],
  ) {
    super(
      `${where}: ${problems.length} problem${problems.length === 1 ? '' : 's'}\n  ${problems.join('\n  ')}`,
    );
    this.name = 'ConfigError';
  }
}

interface Range {
  min?: number;
  max?: number;
  above?: number;
  below?: number;
}

export const text: Check = (value) =>
  typeof value === 'string' && value !== '' ? undefined : 'a non-empty text';
export const boolean: Check = (value) => (typeof value === 'boolean' ? undefined : 'true or false');
export const strings: Check = (value) =>
  Array.isArray(value) && value.length > 0 && value.every((item) => typeof item === 'string')
    ? undefined
    : 'a list of names';

export function choice(...names: string[]): Check {
  return (value) => {
    if (names.includes(value as string)) return undefined;
    const near = typeof value === 'string' ? nearest(value, names) : undefined;
    return `one of ${names.join(', ')}${near ? ` (did you mean ${near}?)` : ''}`;
  };
}

export function number(range: Range = {}): Check {
  return (value) =>
    Number.isFinite(value) && within(value as number, range) ? undefined : 'a number' + describe(range);
}

export function integer(range: Range = {}): Check {
  return (value) =>
    Number.isSafeInteger(value) && within(value as number, range)
      ? undefined
      : 'a whole number' + describe(range);
}

export const regex: Check = (value) => {
  if (typeof value !== 'string') return 'a regular expression';
  const wrong = regexProblem(value);
  if (wrong) return `a valid regular expression (${wrong})`;
  return value.includes('(?<') ? undefined : 'a regular expression with named groups, such as (?<subject>.+)';
};

export const regexes: Check = (value) => {
  if (strings(value)) return 'a list of regular expressions';
  const [wrong] = (value as string[]).flatMap((source) => regexProblem(source) ?? []);
  return wrong && `a list of valid regular expressions (${wrong})`;
};

function regexProblem(source: string): string | undefined {
  try {
    new RegExp(source);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/** Every unknown key, missing key and wrong value of `record`; names are dotted paths. */
export function checkRecord(schema: ConfigSchema, record: Record<string, unknown>, path: string): string[] {
  const rules = new Map(Object.entries(schema).map(([key, rule]) => [key.replace('?', ''), rule]));
  const unknown = Object.keys(record)
    .filter((key) => !rules.has(key))
    .map((key) => {
      const near = nearest(key, [...rules.keys()]);
      return `${path}${key}: unknown setting${near ? ` (did you mean ${path}${near}?)` : ''}`;
    });
  const wrong = [...rules].flatMap(([key, rule]) =>
    checkValue(rule, record[key], path + key, `${key}?` in schema),
  );
  return [...unknown, ...wrong];
}

function checkValue(rule: Check | ConfigSchema, value: unknown, path: string, optional: boolean): string[] {
  if (value === undefined && optional) return [];
  if (typeof rule === 'function') {
    const expected = rule(value);
    if (expected === undefined) return [];
    const missing = value === undefined || value === '';
    return [`${path}: expected ${expected}, ${missing ? 'found nothing' : 'found ' + JSON.stringify(value)}`];
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    const keys = Object.keys(rule).map((key) => key.replace('?', ''));
    return [`${path}: expected a mapping with ${keys.join(', ')}, found ${JSON.stringify(value)}`];
  }
  return checkRecord(rule, value as Record<string, unknown>, path + '.');
}

function within(value: number, { min, max, above, below }: Range): boolean {
  return (
    (min === undefined || value >= min) &&
    (max === undefined || value <= max) &&
    (above === undefined || value > above) &&
    (below === undefined || value < below)
  );
}

function describe({ min, max, above, below }: Range): string {
  const parts = [
    min !== undefined && `at least ${min}`,
    above !== undefined && `above ${above}`,
    max !== undefined && `at most ${max}`,
    below !== undefined && `below ${below}`,
  ].filter(Boolean);
  return parts.length ? ' ' + parts.join(' and ') : '';
}

/** The name of `names` closest to `word`, when it is close enough to be a slip. */
export function nearest(word: string, names: readonly string[]): string | undefined {
  const scored = names.map((name) => ({
    name,
    distance: editDistance(word.toLowerCase(), name.toLowerCase()),
  }));
  const best = scored.sort((a, b) => a.distance - b.distance)[0];
  const contained = names.find((name) => word.length > 3 && (name.includes(word) || word.includes(name)));
  if (best && best.distance <= Math.max(2, Math.floor(word.length / 3))) return best.name;
  return contained;
}

/** Levenshtein distance, one row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++)
      next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
    row = next;
  }
  return row[b.length];
}

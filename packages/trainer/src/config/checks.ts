/** Checks of values: a test for parsing, words for messages and docs, JSON Schema for editors. */
import { probableName } from '@blip2/nn';

export type JsonSchema = Record<string, unknown>;

export interface Check<T> {
  /** in words: "a number above 0" */
  expected: string;
  /** draft 2020-12; it accepts whatever `accepts` does */
  schema: JsonSchema;
  accepts: (value: unknown) => value is T;
  /** `expected` in words that fit this wrong value */
  explain?: (value: unknown) => string;
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

/** More than any path has, and than the positions of a text model hold. */
const MOST_TEXT = 10_000;

export const text: Check<string> = {
  expected: 'a non-empty text',
  schema: { type: 'string', minLength: 1, maxLength: MOST_TEXT },
  accepts: (value): value is string => typeof value === 'string' && value !== '' && value.length <= MOST_TEXT,
  explain(value) {
    const length = typeof value === 'string' ? value.length : 0;
    return this.expected + (length > MOST_TEXT ? ` of at most ${MOST_TEXT} characters (${length})` : '');
  },
};

export const boolean: Check<boolean> = {
  expected: 'true or false',
  schema: { type: 'boolean' },
  accepts: (value) => typeof value === 'boolean',
};

/** A choice that the trainer makes from the data, or off. */
export const autoOrFalse: Check<'auto' | false> = {
  expected: 'auto or false',
  schema: { enum: ['auto', false] },
  accepts: (value) => value === 'auto' || value === false,
};

export const strings: Check<string[]> = {
  expected: 'a list of names',
  schema: { type: 'array', items: { type: 'string' }, minItems: 1 },
  accepts: (value): value is string[] =>
    Array.isArray(value) && value.length > 0 && value.every((item) => typeof item === 'string'),
};

export function choice<const T extends string>(...names: readonly T[]): Check<T> {
  const expected = `one of ${names.join(', ')}`;
  return {
    expected,
    schema: { enum: names },
    accepts: (value): value is T => names.includes(value as T),
    explain(value) {
      const near = typeof value === 'string' ? probableName(value, names) : undefined;
      return expected + (near ? ` (did you mean ${near}?)` : '');
    },
  };
}

type Limit = 'min' | 'above' | 'max' | 'below';

/** The value as the kernels see it. */
const float32 = Math.fround;

type Holds = (value: number, bound: number) => boolean;

/** A limit of a number in words, as a JSON Schema keyword, and as a test. */
const LIMITS: [Limit, string, string, Holds][] = [
  ['min', 'at least', 'minimum', (value, bound) => value >= bound],
  ['above', 'above', 'exclusiveMinimum', (value, bound) => value > bound],
  ['max', 'at most', 'maximum', (value, bound) => value <= bound],
  ['below', 'below', 'exclusiveMaximum', (value, bound) => value < bound],
];

/** A number that keeps its meaning in float32: it stays within the limits, finite, and not 0 unless it is. */
export function number(range: Partial<Record<Limit, number>> = {}): Check<number> {
  const { accepts, ...check } = anyNumber(range);
  const isKept = (value: number) => accepts(float32(value)) && (float32(value) === 0) === (value === 0);
  return {
    ...check,
    accepts: (value): value is number => accepts(value) && isKept(value),
    explain: (value) =>
      check.expected + (accepts(value) ? ` in float32, where this is ${float32(value)}` : ''),
  };
}

function anyNumber(range: Partial<Record<Limit, number>>): Check<number> {
  const limits = LIMITS.filter(([name]) => range[name] !== undefined);
  const words = limits.map(([name, word]) => ` ${word} ${range[name]}`).join(' and');
  return {
    expected: `a number${words}`,
    schema: { type: 'number', ...Object.fromEntries(limits.map(([name, , key]) => [key, range[name]])) },
    accepts: (value): value is number =>
      Number.isFinite(value) && limits.every(([name, , , holds]) => holds(value as number, range[name]!)),
  };
}

export function integer(range: Partial<Record<Limit, number>> = {}): Check<number> {
  const { expected, schema, accepts } = anyNumber(range);
  return {
    expected: expected.replace('a number', 'a whole number'),
    schema: { ...schema, type: 'integer' },
    accepts: (value): value is number => accepts(value) && Number.isSafeInteger(value),
  };
}

export const regex: Check<string> = {
  expected: 'a regular expression',
  schema: { type: 'string', format: 'regex', pattern: '\\(\\?<' },
  accepts: (value): value is string =>
    typeof value === 'string' && regexProblem(value) === undefined && value.includes('(?<'),
  explain(value) {
    if (typeof value !== 'string') return this.expected;
    const wrong = regexProblem(value);
    if (wrong) return `a valid regular expression (${wrong})`;
    return 'a regular expression with named groups, such as (?<subject>.+)';
  },
};

export const regexes: Check<string[]> = {
  expected: 'a list of regular expressions',
  schema: { ...strings.schema, items: { type: 'string', format: 'regex' } },
  accepts: (value): value is string[] =>
    strings.accepts(value) && value.every((source) => regexProblem(source) === undefined),
  explain(value) {
    if (!strings.accepts(value)) return this.expected;
    const [wrong] = value.flatMap((source) => regexProblem(source) ?? []);
    return `a list of valid regular expressions (${wrong})`;
  },
};

function regexProblem(source: string): string | undefined {
  try {
    new RegExp(source);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/** What a value may be: a test for parsing, words for messages and docs, JSON Schema for editors. */
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

export const text: Check<string> = {
  expected: 'a non-empty text',
  schema: { type: 'string', minLength: 1 },
  accepts: (value): value is string => typeof value === 'string' && value !== '',
};

export const boolean: Check<boolean> = {
  expected: 'true or false',
  schema: { type: 'boolean' },
  accepts: (value) => typeof value === 'boolean',
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

const LIMITS = [
  {
    name: 'min',
    words: 'at least',
    keyword: 'minimum',
    holds: (value: number, limit: number) => value >= limit,
  },
  {
    name: 'above',
    words: 'above',
    keyword: 'exclusiveMinimum',
    holds: (value: number, limit: number) => value > limit,
  },
  {
    name: 'max',
    words: 'at most',
    keyword: 'maximum',
    holds: (value: number, limit: number) => value <= limit,
  },
  {
    name: 'below',
    words: 'below',
    keyword: 'exclusiveMaximum',
    holds: (value: number, limit: number) => value < limit,
  },
] as const;

type Range = Partial<Record<(typeof LIMITS)[number]['name'], number>>;

export function number(range: Range = {}): Check<number> {
  const limits = LIMITS.flatMap(({ name, ...limit }) => {
    const bound = range[name];
    return bound === undefined ? [] : [{ ...limit, bound }];
  });
  const words = limits.map(({ words, bound }) => `${words} ${bound}`).join(' and ');
  return {
    expected: words ? `a number ${words}` : 'a number',
    schema: {
      type: 'number',
      ...Object.fromEntries(limits.map(({ keyword, bound }) => [keyword, bound])),
    },
    accepts: (value): value is number =>
      Number.isFinite(value) && limits.every(({ holds, bound }) => holds(value as number, bound)),
  };
}

export function integer(range: Range = {}): Check<number> {
  const { expected, schema, accepts } = number(range);
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

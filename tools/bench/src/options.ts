/** The command line. Every subcommand has its own options; a wrong one is a UsageError. */
import { parseArgs } from 'node:util';
import { PRECISIONS } from '@blip2/nn';
import type { Precision } from '@blip2/nn';

export class UsageError extends Error {
  override name = 'UsageError';
}

/** Values by name; each is checked when it is read. */
export interface Options {
  text(name: string): string;
  maybe(name: string): string | undefined;
  count(name: string): number;
  positive(name: string): number;
  flag(name: string): boolean;
  oneOf<T extends string>(name: string, choices: readonly T[]): T;
  precision(): Precision;
  /** Names separated by commas, each of them one of the choices. */
  list<T extends string>(name: string, choices: readonly T[]): T[];
  /** Whole numbers separated by commas. */
  counts(name: string): number[];
}

/**
 * Reads `--name value` and `--flag`. `known` has every option with its default: `undefined` for an optional one, `null` for a
 * required one, a boolean for a flag.
 * @throws UsageError
 */
export function readOptions(
  args: readonly string[],
  known: Record<string, string | boolean | null | undefined>,
): Options {
  const types = Object.fromEntries(
    Object.entries(known).map(([name, value]) => [
      name,
      { type: typeof value === 'boolean' ? ('boolean' as const) : ('string' as const) },
    ]),
  );
  const parsed = parse(args, types);
  const value = (name: string) => parsed[name] ?? known[name];
  const text = (name: string): string => {
    const found = value(name);
    if (typeof found === 'string') return found;
    throw new UsageError(`--${name} is required`);
  };
  const positive = (name: string, word = text(name)): number => {
    const number = Number(word);
    if (Number.isFinite(number) && number > 0) return number;
    throw new UsageError(`--${name}: expected a positive number, found "${word}"`);
  };
  const count = (name: string, word = text(name)): number => {
    const number = positive(name, word);
    if (Number.isInteger(number)) return number;
    throw new UsageError(`--${name}: expected a whole number, found "${word}"`);
  };
  const words = (name: string) =>
    text(name)
      .split(',')
      .map((word) => word.trim());
  const choice = <T extends string>(name: string, word: string, choices: readonly T[]): T => {
    const found = choices.find((c) => c === word);
    if (found !== undefined) return found;
    throw new UsageError(`--${name}: expected ${choices.join(', ')}, found "${word}"`);
  };
  for (const [name, fallback] of Object.entries(known)) if (fallback === null) text(name);
  return {
    text,
    positive: (name) => positive(name),
    count: (name) => count(name),
    maybe: (name) => value(name) as string | undefined,
    flag: (name) => value(name) === true,
    oneOf: (name, choices) => choice(name, text(name), choices),
    precision: () => choice('precision', text('precision'), PRECISIONS),
    list: (name, choices) => words(name).map((word) => choice(name, word, choices)),
    counts: (name) => words(name).map((word) => count(name, word)),
  };
}

function parse(args: readonly string[], options: Record<string, { type: 'string' | 'boolean' }>) {
  try {
    return parseArgs({ args: [...args], options }).values as Record<string, string | boolean | undefined>;
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

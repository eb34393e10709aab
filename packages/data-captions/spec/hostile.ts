/** Reproducible damaged inputs, and counts of those read and refused. */
import { afterAll, expect } from 'vitest';
import { DataError } from '../src/errors';
import { randomWord } from '../src/random';

/** Factor on the number of inputs; `npm run sweep` sets it. */
export const SCALE = Number(process.env.BLIP2_SWEEP ?? 1);
/** Timeout of a test, in milliseconds. */
export const LONG = 60_000 + 30_000 * SCALE;

/** Returns a random integer below `n`, the same in every run. */
export type Roll = (n: number) => number;
export function dice(seed: number): Roll {
  let count = 0;
  return (n) => Math.floor((randomWord(seed, 0, count++) / 2 ** 32) * n);
}

type Mutation = (bytes: Buffer, roll: Roll) => Buffer;
const noise = (roll: Roll, length: number) => Buffer.from(Array.from({ length }, () => roll(256)));

const MUTATIONS: Mutation[] = [
  (b, roll) => b.subarray(0, roll(b.length)),
  (b, roll) => b.subarray(roll(Math.min(b.length, 64))),
  (b, roll) => flipped(b, roll, 1),
  (b, roll) => flipped(b, roll, 8),
  (b, roll) => flipped(b, (n) => roll(Math.min(n, 48)), 4), // headers
  (b, roll) => flipped(b, (n) => (n > 8 ? n - 1 - roll(Math.min(n, 400)) : roll(n)), 3), // footers
  (b, roll) =>
    Buffer.concat([b.subarray(0, roll(b.length)), Buffer.alloc(roll(64)), b.subarray(roll(b.length))]),
  (b, roll) => Buffer.concat([b, noise(roll, roll(200))]),
  (b, roll) => {
    const from = roll(b.length);
    return Buffer.concat([
      b.subarray(0, from),
      Buffer.alloc(Math.min(64, b.length - from), 255),
      b.subarray(from + 64),
    ]);
  },
  (b, roll) =>
    Buffer.concat([b.subarray(0, 16), Buffer.from([roll(256), roll(256), 255, 255]), b.subarray(20)]), // sizes
  (b, roll) => Buffer.concat([b.subarray(0, 24), noise(roll, 40)]),
];

/** Number of ways to damage bytes. */
export const WAYS = MUTATIONS.length;

/** Damages bytes in way number `way`, at a place that depends on the seed. */
export function damaged(bytes: Buffer, way: number, seed: number): Buffer {
  return MUTATIONS[way % WAYS](bytes, dice(seed));
}

function flipped(bytes: Buffer, roll: Roll, times: number): Buffer {
  const out = Buffer.from(bytes);
  for (let i = 0; i < times && out.length > 0; i++) out[roll(out.length)] ^= 1 << roll(8);
  return out;
}

/** Values of an unexpected type or size. */
const ODD: ((roll: Roll) => unknown)[] = [
  () => null,
  () => true,
  (roll) => [0, -1, 1e308, 2 ** 53, 0.5, -0][roll(6)],
  (roll) => ['', ' ', '\0', '\ud800', '__proto__', 'x'.repeat(5000), '../../etc/passwd', '{}'][roll(8)],
  () => [],
  () => ({}),
  () => [[[[[]]]]],
  () => ({ constructor: { prototype: 1 }, toString: 1, length: 1e9 }),
];

/** The value as JSON, with one part replaced, removed or doubled. */
export function misshapenJson(value: unknown, seed: number): string {
  return JSON.stringify(misshapen(value, dice(seed)));
}

function misshapen(value: unknown, roll: Roll): unknown {
  const keys = typeof value === 'object' && value !== null ? Object.keys(value) : [];
  if (keys.length === 0 || roll(6) === 0) return ODD[roll(ODD.length)](roll);
  const key = keys[roll(keys.length)];
  const copy = (Array.isArray(value) ? [...(value as unknown[])] : { ...(value as object) }) as Record<
    string,
    unknown
  >;
  const what = roll(8);
  if (what === 0) delete copy[key];
  else if (what === 1) copy[`${key}_`] = copy[key];
  else copy[key] = misshapen(copy[key], roll);
  return copy;
}

const counts = new Map<string, { read: number; refused: number; slowest: number }>();
const before = process.memoryUsage().rss;

/** Returns whether the work on an input succeeded. @throws Error for a failure other than a DataError with a message */
export async function readOrRefused(kind: string, what: string, work: () => unknown): Promise<boolean> {
  const count = counts.get(kind) ?? { read: 0, refused: 0, slowest: 0 };
  counts.set(kind, count);
  const begin = performance.now();
  try {
    await work();
    count.read++;
    return true;
  } catch (error) {
    if (!(error instanceof DataError && error.message.length > 10)) {
      const found = error instanceof Error ? error.stack : String(error);
      throw new Error(`${kind}, ${what}: expected a DataError, found ${found}`);
    }
    count.refused++;
    return false;
  } finally {
    count.slowest = Math.max(count.slowest, performance.now() - begin);
  }
}

/** Numbers of inputs read and refused, of all kinds with this prefix. */
export function countOf(kind: string): { read: number; refused: number } {
  const matching = [...counts].filter(([name]) => name.startsWith(kind)).map(([, count]) => count);
  const sum = (of: (c: (typeof matching)[0]) => number) =>
    matching.reduce((all, count) => all + of(count), 0);
  return { read: sum((c) => c.read), refused: sum((c) => c.refused) };
}

/** After the tests of a file: prints the counts by kind, and checks the memory used. */
export function reportAtTheEnd(): void {
  afterAll(() => {
    const line = (name: string, values: (number | string)[]) =>
      name.padEnd(28) + values.map((value) => String(value).padStart(10)).join('');
    const rows = [...counts].map(([name, { read, refused, slowest }]) =>
      line(name, [read + refused, read, refused, `${slowest.toFixed(0)} ms`]),
    );
    const grown = (process.memoryUsage().rss - before) / 2 ** 20;
    const all = countOf('');
    if (SCALE > 1)
      console.error(
        [line('kind', ['inputs', 'read', 'refused', 'slowest']), ...rows].join('\n') +
          `\n${line('all', [all.read + all.refused, all.read, all.refused, ''])}\nmemory grew by ${grown.toFixed(0)} MiB`,
      );
    expect(grown).toBeLessThan(1500);
  });
}

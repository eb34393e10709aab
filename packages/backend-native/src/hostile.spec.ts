/**
 * Every function of the addon with hostile arguments: sizes to 2^53 and beyond, wrong types, detached, resized and shared buffers, getters
 * that detach, and values that are not finite. It must return or throw an Error; `npm run sanitize` runs this too and ends at the first
 * access outside of an array and at undefined behaviour.
 */
import { describe, expect, it } from 'vitest';
import { addon, bfloat16Levels, levels, loaded } from '../spec/fixtures';
import { entryPoints } from '../spec/entry-points';
import { uniform } from '../spec/scalar-reference';

type Values = Float32Array | Int32Array | Uint8Array;
type Random = (below: number) => number;

const name = loaded.addon ? 'hostile arguments' : `hostile arguments (SKIPPED: ${loaded.why})`;

/** Products of these pass a comparison in 64 bits: 274177 · 67280421310721 = 2^64 + 1, 2^32 · 2^32 = 2^64. */
const sizes = [0, 1, 2, 3, 7, 65, 1e6, 2 ** 31, 2 ** 32, 2 ** 32 + 1, 274177, 67280421310721];
const numbers = [...sizes, 2 ** 52, 2 ** 53 - 1, 2 ** 53, 2 ** 63, 1e308, -1, 0.5, NaN, Infinity, -Infinity];
const floats = [NaN, Infinity, -Infinity, 1e38, -1e38, 3.4e38, 1e-45, -0, 0, 1, -88.5, 89];
const others = [
  undefined,
  null,
  true,
  'x',
  '',
  {},
  [],
  Symbol('s'),
  1n,
  () => 1,
  new Date(),
  new DataView(new ArrayBuffer(8)),
];

function detach<T extends Values>(array: T): T {
  structuredClone(array.buffer, { transfer: [array.buffer as ArrayBuffer] });
  return array;
}

/** A view whose buffer was made smaller than it. */
function outOfBounds(length: number): Float32Array {
  type Resizable = ArrayBuffer & { resize(bytes: number): void };
  const buffer = Reflect.construct(ArrayBuffer, [
    4 * length + 4,
    { maxByteLength: 8 * length + 8 },
  ]) as Resizable;
  const view = new Float32Array(buffer, 0, length);
  buffer.resize(0);
  return view;
}

/** The same length in shared memory, which another thread could change during the call. */
function shared(array: Values): Values {
  const Kind = array.constructor as new (buffer: SharedArrayBuffer) => Values;
  return new Kind(new SharedArrayBuffer(array.byteLength));
}

function hostileArray(array: Values, pick: Random): unknown {
  const changed = [
    () => detach(array.slice()),
    () => outOfBounds(array.length),
    () => shared(array),
    () => array.subarray(1),
    () => new Float32Array(array.length + 1),
    () => new Float64Array(array.length),
    () => new Uint16Array(array.length),
    () => new Int32Array(array.length).fill(2 ** 31 - 1),
    () => new Int32Array(array.length).fill(-(2 ** 31)),
    () => new Float32Array(0),
    () => Array.from({ length: array.length }, () => 0),
    () => others[pick(others.length)],
  ];
  return changed[pick(changed.length)]!();
}

function hostileList(list: unknown[], pick: Random): unknown {
  const at = pick(Math.max(1, list.length));
  const copy = [...list];
  const victims = list.filter((entry): entry is Values => ArrayBuffer.isView(entry));
  const changed = [
    () => ((copy[at] = others[pick(others.length)]), copy),
    () => ((copy[at] = numbers[pick(numbers.length)]), copy),
    () => ((copy[at] = ArrayBuffer.isView(list[at]) ? hostileArray(list[at] as Values, pick) : -1), copy),
    () => copy.slice(1),
    () => [...copy, copy[0]],
    () => new Array(2 ** 32 - 1),
    () => new Array(2 ** 30),
    () => new Proxy(copy, {}),
    () =>
      Object.defineProperty(copy, at, {
        get() {
          victims.forEach((victim) => victim.buffer.byteLength && detach(victim));
          return list[at];
        },
      }),
    () =>
      Object.defineProperty(copy, at, {
        get() {
          throw new Error('native: from a getter');
        },
      }),
  ];
  return changed[pick(changed.length)]!();
}

function hostile(value: unknown, pick: Random): unknown {
  if (pick(12) === 0) return others[pick(others.length)];
  if (typeof value === 'number') return numbers[pick(numbers.length)];
  if (ArrayBuffer.isView(value)) return hostileArray(value as Values, pick);
  if (Array.isArray(value)) return hostileList(value, pick);
  return others[pick(others.length)];
}

/** Fills all floats with hostile values. */
function spoil(args: unknown[], pick: Random): unknown[] {
  for (const arg of args.flat())
    if (arg instanceof Float32Array) arg.forEach((_, i) => (arg[i] = floats[pick(floats.length)]!));
  return args;
}

function call(entry: string, args: unknown[]): void {
  const [, run] = Object.entries(addon).find(([name]) => name === entry)!;
  (run as (...args: unknown[]) => unknown)(...args);
}

/** Calls, and returns why it was refused, if it was. */
function attempt(entry: string, args: unknown[]): string | undefined {
  try {
    call(entry, args);
    return undefined;
  } catch (error) {
    expect(error).toBeInstanceOf(Error);
    return (error as Error).message;
  }
}

describe.skipIf(!loaded.addon)(name, () => {
  const all = loaded.addon ? entryPoints(addon) : {};
  const safe = Object.keys(all);
  const overflow = (entry: string, args: unknown[]) =>
    expect(attempt(entry, args), entry).toMatch(/^native \w+: .*expected/);

  it('the table has every function of the addon', () => {
    const settings = ['setThreads', 'setInstructionSet', 'instructionSet', 'instructionSets'];
    expect([...safe, ...settings].sort()).toEqual(Object.keys(addon).sort());
    for (const entry of safe) expect(attempt(entry, all[entry]!()), entry).toBeUndefined();
  });

  it('products of sizes that overflow 64 bits do not match an array', () => {
    const [M, N] = [274177, 67280421310721];
    const one = () => new Float32Array(1);
    const index = Int32Array.of(0);
    overflow('gatherRows', [one(), index, new Float32Array(N % 2), M, N]);
    overflow('scatterAddRows', [one(), index, one(), M, N]);
    overflow('sumColumns', [one(), one(), M, N]);
    overflow('pack', [one(), false, one(), N, M]);
    overflow('crossEntropy', [one(), index, 0, one(), one(), M, N]);
    overflow('linearCrossEntropy', [one(), one(), index, 0, one(), one(), 1, M, N]);
    overflow('binary', [0, one(), [0, 0], one(), [0, 0], [M, N], one()]);
    overflow('binary', [0, one(), [2 ** 52, 2 ** 52], one(), [0, 0], [2 ** 12, 2 ** 12], one()]);
    overflow('copy', [one(), 0, [0, 0], one(), 0, [0, 0], [M, N]]);
    overflow('copy', [one(), 2 ** 53 - 1, [2 ** 53 - 1], one(), 0, [0], [1025]]);
    overflow('attentionGrad', [
      ...[M, 1, 1, N, 1, 1, false, 0, 0, 0, one(), one(), one(), null, null],
      ...[one(), one(), one(), one(), one(), one()],
    ]);
    overflow('pagedAttention', [
      M,
      1,
      N,
      1,
      1,
      false,
      one(),
      [1],
      [one()],
      [one()],
      [null],
      null,
      null,
      one(),
    ]);
    overflow('packedLength', [2 ** 32, 2 ** 32]);
    expect(attempt('copy', [one(), 0, [0], one(), 0, [0], [2 ** 53 - 1]])).toContain(
      'at most as many elements',
    );
  });

  it('empty arrays with another size of 2^53 - 1 return at once', () => {
    const [none, one, big] = [new Float32Array(0), new Float32Array(1), 2 ** 53 - 1];
    const indices = new Int32Array(0);
    call('sumRows', [none, none, big, 0]);
    call('scatterAddRows', [none, indices, none, 0, big]);
    call('gatherRows', [none, Int32Array.of(3), none, big, 0]);
    call('gemm', [none, false, none, false, null, none, big, 0, 1, 0, false, false]);
    call('gemm', [none, false, one, false, null, none, big, 0, 1, 1, false, true]);
    const nothing = [none, none, none, null, null, none, none];
    call('attentionGrad', [big, 0, 0, 1, 1, 1, false, 0, 0, 0, ...nothing, none, none, none, none]);
    call('attention', [big, 0, 0, 1, 1, 1, false, 0, 0, 0, ...nothing]);
    call('pagedAttention', [big, 0, 1, 1, 1, false, none, [], [], [], [], null, null, none]);
    const heads = [1, 0, 0, 0, big, 1, false, 0, 0, 0, ...nothing, none, none, none, none];
    expect(attempt('attentionGrad', heads)).toContain('numHeads: expected a divisor');
    const loss = [none, none, Int32Array.of(1), 0, one, one, 1, 0, big];
    expect(attempt('linearCrossEntropy', loss)).toContain('D: expected at least 1');
  });

  it('getters that detach other arrays are run before any address is taken', () => {
    for (const [entry, list] of [
      ['adamW', 0],
      ['adamW', 1],
      ['pagedAttention', 8],
      ['pagedAttention', 9],
      ['pagedAttention', 10],
    ] as const) {
      const args = all[entry]!();
      const values = args[list] as unknown[];
      const [last, kept] = [values.length - 1, values.at(-1)];
      const lists = args.filter((arg): arg is unknown[] => Array.isArray(arg)).flat();
      const others = lists.filter((arg): arg is Values => ArrayBuffer.isView(arg) && arg !== kept);
      Object.defineProperty(values, last, {
        get() {
          others.forEach((view) => view.buffer.byteLength && detach(view));
          return kept;
        },
      });
      expect(attempt(entry, args), `${entry}, argument ${list}`).toMatch(/^native \w+: .*expected.*found/);
    }
  });

  it('random hostile arguments are refused or computed', () => {
    let seed = 0;
    const pick: Random = (below) => Math.floor(uniform(++seed, 1, 2) * below);
    const counts = { refused: 0, computed: 0 };
    for (const level of [...levels, ...bfloat16Levels.filter((level) => !levels.includes(level))]) {
      addon.setInstructionSet(level);
      for (const entry of safe)
        for (let i = 0; i < 150; i++) {
          addon.setThreads(1 + pick(3));
          const args = i % 2 ? spoil(all[entry]!(), pick) : all[entry]!();
          if (i % 10 > 0 && args.length > 0)
            for (const at of new Set([pick(args.length), pick(args.length), pick(args.length)]))
              args[at] = hostile(args[at], pick);
          counts[attempt(entry, args) === undefined ? 'computed' : 'refused']++;
        }
    }
    expect(counts.refused).toBeGreaterThan(1000);
    expect(counts.computed).toBeGreaterThan(1000);
  });
});

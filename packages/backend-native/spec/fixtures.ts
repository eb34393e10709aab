/** Shared helpers of the specs of the addon. */
import { firstDifference } from '@blip2/nn/conformance';
import { describe, expect, it } from 'vitest';
import { loadAddon } from '../src/addon';
import type { NativeAddon } from '../src/addon';
import * as reference from './scalar-reference';

export const loaded = loadAddon();
export const addon = loaded.addon as NativeAddon;
export const levels = loaded.addon ? addon.instructionSets().split(' ') : [];
/** Levels whose int8 matmul is their own; all else is that of the level below. */
const vnniLevels = ['dotprod', 'avxvnni', 'avx512vnni'];
/** Levels with bfloat16 matmul, including the emulation of AMX, which is not in `levels`. */
export const bfloat16Levels = ['avx512bf16', 'amx', 'amx_emulated'].filter((level) => has(level));
export const sizes = [1, 2, 3, 4, 5, 7, 8, 13, 14, 15, 16, 17, 29, 31, 32, 33, 48, 63, 64, 65];

/**
 * A suite at every instruction-set level with its own kernels: the levels left out use those of the level below, except for matmul and
 * attention. `at` is vitest's `it` at the level.
 */
export function atEveryLevel(
  subject: string,
  suite: (at: (title: string, test: () => void) => void) => void,
): void {
  const own = levels.filter((level) => ![...bfloat16Levels, ...vnniLevels].includes(level));
  describe.skipIf(!loaded.addon)(`${subject}${loaded.why ? ` (SKIPPED: ${loaded.why})` : ''}`, () =>
    describe.each(own)('%s', (level) =>
      suite((title, test) =>
        it(title, () => {
          addon.setInstructionSet(level);
          expect(addon.instructionSet()).toBe(level);
          test();
        }),
      ),
    ),
  );
}

function has(level: string): boolean {
  if (!loaded.addon) return false;
  const before = addon.instructionSet();
  try {
    addon.setInstructionSet(level);
    return true;
  } catch {
    return false;
  } finally {
    addon.setInstructionSet(before);
  }
}

/** The numbers so far for each seed: generating them takes longer than multiplying them. */
const made = new Map<number, Float32Array>();

/** Reproducible numbers in -1 … 1. */
export function numbers(n: number, seed: number): Float32Array {
  const ready = made.get(seed) ?? new Float32Array();
  if (n <= ready.length) return ready.slice(0, n);
  const out = new Float32Array(Math.max(n, 4096));
  out.set(ready);
  for (let i = ready.length; i < out.length; i++) out[i] = 2 * reference.uniform(i, seed, 1) - 1;
  made.set(seed, out);
  return out.slice(0, n);
}

/** A copy that begins `offset` elements into its buffer, so it is not aligned. */
export function misaligned(values: Float32Array, offset: number): Float32Array {
  const whole = new Float32Array(values.length + offset);
  whole.set(values, offset);
  return whole.subarray(offset);
}

export function expectClose(
  found: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
  what = '',
): void {
  const wrong = firstDifference(found, expected, tolerance);
  if (wrong) expect.fail(`${what} ${wrong}`);
}

/** Runs with 1 and with 2 threads and expects the same bits. */
export function run(call: (make: (n: number) => Float32Array) => void): Float32Array[] {
  const results = [1, 2].map((threads) => {
    addon.setThreads(threads);
    const made: Float32Array[] = [];
    call((n) => {
      const array = new Float32Array(n).fill(NaN);
      made.push(array);
      return array;
    });
    return made;
  });
  results[0]!.forEach((one, i) =>
    expect(
      Buffer.from(one.buffer).equals(Buffer.from(results[1]![i]!.buffer)),
      `output ${i}, 1 and 2 threads`,
    ).toBe(true),
  );
  return results[1]!;
}

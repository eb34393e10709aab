/** GPTQ: codes and steps of a reference in float64 (tools/parity/make_gptq_fixture.py), at every level and number of threads. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { addon, levels, loaded, numbers } from '../spec/fixtures';
import { matMul } from '../spec/scalar-reference';

interface Golden {
  rows: number;
  columns: number;
  damping: number;
  weight: string;
  inputs: string;
  cases: { factors: number[]; codes: string; steps: number[][] }[];
}
const file = fileURLToPath(new URL('../fixtures/gptq.json', import.meta.url));
const golden = JSON.parse(readFileSync(file, 'utf8')) as Golden;
const whole = (text: string) => Int8Array.from(Buffer.from(text, 'base64'));
const floats = (text: string) => Float32Array.from(whole(text), (x) => x / 64);
const bytesOf = (array: Float32Array | Uint8Array) => new Uint8Array(array.slice().buffer);
const none = new Float32Array(0);

/** The root of x [M, K] without the rows `left`; undefined if there is none. */
function rootOf(x: Float32Array, K: number, left = none, damping = golden.damping): Float32Array | undefined {
  const [room, root] = [new Float32Array(K * Math.max(256, left.length / K)), new Float32Array(K * K)];
  return addon.inputRoot(x, left, damping, room, root) ? root : undefined;
}

function made(w: Float32Array, rows: number, columns: number, factors: Float32Array, root?: Float32Array) {
  const from = addon.storeWeight('F32', rows, columns, [{ bytes: bytesOf(w) }], false);
  const groups = Math.ceil(rows / 32) * Math.ceil(columns / 64);
  const [codes, steps] = [new Uint8Array(groups * 1024), new Uint8Array(groups * 32)];
  const scales = new Float32Array(rows);
  const room = new Float32Array(rows * (columns + 64));
  if (root) addon.quantiseGptq(from, factors, root, room, codes, steps, scales);
  else addon.quantiseInt4(from, factors, codes, steps, scales);
  const parts = [codes, steps, scales, factors].map((part) => ({ bytes: bytesOf(part) }));
  const weight = addon.storeWeight('INT4', rows, columns, parts, false);
  const values = new Float32Array(rows * columns);
  addon.storedFloats(weight, values);
  [from, weight].forEach((handle) => addon.releaseStored(handle));
  return { codes, steps, scales, values };
}

/** Sum of squares of x · (a - b)ᵀ. */
function change(x: Float32Array, a: Float32Array, b: Float32Array, rows: number, columns: number): number {
  const difference = a.map((value, i) => value - b[i]!);
  return matMul(x, false, difference, true, x.length / columns, rows, columns).reduce(
    (sum, y) => sum + y * y,
    0,
  );
}

const title = loaded.addon ? 'GPTQ' : `GPTQ (SKIPPED: ${loaded.why})`;
describe.skipIf(!loaded.addon)(title, () => {
  afterAll(() => addon.setInstructionSet(levels.at(-1)!));

  describe.each(levels)('%s', (level) => {
    it('has the codes and steps of the reference', () => {
      addon.setInstructionSet(level);
      const { rows: N, columns: K, cases } = golden;
      const [weight, inputs] = [floats(golden.weight), floats(golden.inputs)];
      const root = rootOf(inputs, K)!;
      for (const { factors, codes, steps } of cases) {
        const { codes: found, steps: steps_found } = made(weight, N, K, Float32Array.from(factors), root);
        const groups = Math.ceil(K / 64);
        const q = Int8Array.from({ length: N * K }, (_, i) => {
          const [n, k] = [Math.floor(i / K), i % K];
          const group = (Math.floor(n / 32) * groups + Math.floor(k / 64)) * 1024;
          const byte = found[group + Math.floor((k % 64) / 8) * 128 + (n % 32) * 4 + (k % 4)]!;
          return (k % 8 < 4 ? byte & 15 : byte >> 4) - 8;
        });
        expect(q).toEqual(whole(codes));
        steps.forEach((of, g) =>
          expect(of.map((_, n) => steps_found[(Math.floor(n / 32) * groups + g) * 32 + (n % 32)])).toEqual(
            of,
          ),
        );
      }
    });

    it('the root has the products of the rows that are not left out', () => {
      addon.setInstructionSet(level);
      for (const [M, K, left] of [
        [1, 1, 0],
        [40, 33, 0],
        [90, 300, 3],
        [80, 530, 64],
      ] as const) {
        const x = numbers(M * K, 3);
        const root = rootOf(x, K, x.slice(5 * K, (5 + left) * K), 0.25)!;
        const upper = root.map((value, i) => (i % K < Math.floor(i / K) ? 0 : value));
        const found = matMul(upper, false, upper, true, K, K, K);
        const rest = x.map((value, i) => (i >= 5 * K && i < (5 + left) * K ? 0 : value));
        const wanted = matMul(rest, true, rest, false, K, K, M);
        let diagonal = 0;
        for (let k = 0; k < K; k++) diagonal += wanted[k * (K + 1)]! / K;
        for (let k = 0; k < K; k++) wanted[k * (K + 1)]! += 0.25 * diagonal;
        const most = found.reduce((worst, h, i) => Math.max(worst, Math.abs(h - wanted[i]!)), 0);
        expect(most).toBeLessThan(2e-5 * diagonal);
      }
    });
  });

  it('changes outputs by less than half of plain rounding, also for other inputs of the kind', () => {
    const [N, K, M] = [96, 256, 1200];
    const mix = numbers(16 * K, 2);
    const x = Float32Array.from(matMul(numbers(M * 16, 5), false, mix, false, M, K, 16)).map(
      (value, i) => value + numbers(1, 1 + (i % 31))[0]! / 4,
    );
    const [fitted, others] = [x.slice(0, 1000 * K), x.slice(1000 * K)];
    const w = numbers(N * K, 7);
    const ones = new Float32Array(K).fill(1);
    const root = rootOf(fitted, K)!;
    for (const inputs of [fitted, others]) {
      const plain = change(inputs, made(w, N, K, ones).values, w, N, K);
      const gptq = change(inputs, made(w, N, K, ones, root).values, w, N, K);
      expect(Math.sqrt(gptq / plain)).toBeLessThan(0.5);
    }
  });

  it('is the same for every number of threads', () => {
    const [N, K] = [150, 700];
    const [x, w] = [numbers(900 * K, 4), numbers(N * K, 5)];
    const ones = new Float32Array(K).fill(1);
    const all = [1, 2, 7].map((threads) => {
      addon.setThreads(threads);
      const { codes, steps } = made(w, N, K, ones, rootOf(x, K));
      return Buffer.concat([codes, steps]);
    });
    addon.setThreads(2);
    for (const other of all) expect(other.equals(all[0]!)).toBe(true);
  });

  it('rows of zeros and rows that are not finite keep their scales, and change no other row', () => {
    const [N, K] = [40, 70];
    const [x, w] = [numbers(200 * K, 4), numbers(N * K, 5)];
    const ones = new Float32Array(K).fill(1);
    const root = rootOf(x, K)!;
    const before = made(w, N, K, ones, root);
    const odd = w.slice().fill(0, 3 * K, 4 * K);
    odd[20 * K + 1] = NaN;
    odd[21 * K + 1] = Infinity;
    const after = made(odd, N, K, ones, root);
    expect([after.scales[3], after.scales[20], after.scales[21]]).toEqual([0, NaN, NaN]);
    for (let n = 0; n < N; n++)
      if (![3, 20, 21].includes(n))
        expect(after.values.subarray(n * K, (n + 1) * K)).toEqual(before.values.subarray(n * K, (n + 1) * K));
  });

  it('there is no root of inputs that are zero or not finite', () => {
    expect(rootOf(new Float32Array(40), 4)).toBeUndefined();
    for (const value of [NaN, Infinity, 1e30]) {
      const x = numbers(40, 3);
      x[7] = value;
      expect(rootOf(x, 4)).toBeUndefined();
    }
    expect(rootOf(numbers(40, 3), 4, none, NaN)).toBeUndefined();
  });
});

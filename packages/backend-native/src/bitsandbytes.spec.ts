/** Weights in bitsandbytes' encodings: their exact values, and matmul with them, at every level. */
import { expect } from 'vitest';
import type { StoredHandle } from './addon';
import * as reference from '../spec/scalar-reference';
import { addon, atEveryLevel, expectClose, numbers } from '../spec/fixtures';

interface Case {
  handle: StoredHandle;
  values: Float32Array;
}

const { fround } = Math;
const bytesOf = (array: Float32Array | Int8Array | Uint8Array) => ({
  bytes: new Uint8Array(array.slice().buffer),
});
const whole = (n: number, seed: number, most: number) =>
  Int8Array.from(numbers(n, seed), (x) => Math.round(x * most));

function bnb8(rows: number, columns: number): Case {
  const [q, scales] = [whole(rows * columns, 3, 127), numbers(rows, 4)];
  const values = Float32Array.from(q, (n, i) =>
    fround(fround(n * scales[Math.floor(i / columns)]!) * fround(7.874015718698502e-3)),
  );
  return { handle: addon.storeWeight('BNB8', rows, columns, [bytesOf(q), bytesOf(scales)], false), values };
}

function bnb4(rows: number, columns: number): Case {
  const count = rows * columns;
  const codes = Uint8Array.from(whole(2 * Math.ceil(count / 2), 5, 7.4), (n) => n + 8);
  const [absmax, table] = [numbers(Math.ceil(count / 64), 6), numbers(16, 7)];
  const bytes = new Uint8Array(codes.length / 2).map((_, i) => codes[2 * i]! * 16 + codes[2 * i + 1]!);
  const values = new Float32Array(count).map((_, i) => table[codes[i]!]! * absmax[Math.floor(i / 64)]!);
  const spans = [bytes, absmax, table].map(bytesOf);
  return { handle: addon.storeWeight('BNB4', rows, columns, spans, false), values };
}

atEveryLevel('weights of bitsandbytes', (at) => {
  const sizes = [
    [1, 1],
    [3, 5],
    [7, 64],
    [40, 70],
    [33, 128],
    [70, 83],
    [65, 192],
  ] as const;

  at('have their exact values', () => {
    for (const [rows, columns] of sizes)
      for (const { handle, values } of [bnb8(rows, columns), bnb4(rows, columns)]) {
        const found = new Float32Array(rows * columns);
        addon.storedFloats(handle, found);
        expect(found).toEqual(values);
        const last = new Float32Array(columns);
        addon.storedRows(handle, Int32Array.of(rows - 1), last);
        expect(last).toEqual(values.subarray((rows - 1) * columns));
        addon.releaseStored(handle);
      }
  });

  at('are multiplied in both directions', () => {
    for (const [N, K] of sizes)
      for (const { handle, values } of [bnb8(N, K), bnb4(N, K)]) {
        for (const M of [1, 2, 5, 60]) {
          const [x, dy] = [numbers(M * K, 8), numbers(M * N, 9)];
          const [y, dx] = [new Float32Array(M * N), new Float32Array(M * K)];
          addon.timesWeight(x, handle, true, null, 'none', null, y, M, N, K, 'float32');
          expectClose(y, reference.matMul(x, false, values, true, M, N, K), 1e-5, `x · Wᵀ ${M} ${N} ${K}`);
          addon.timesWeight(dy, handle, false, null, 'none', null, dx, M, K, N, 'float32');
          expectClose(dx, reference.matMul(dy, false, values, false, M, K, N), 1e-5, `dy · W ${M} ${N} ${K}`);
        }
        addon.releaseStored(handle);
      }
  });

  at('are refused with parts of other sizes', () => {
    const open = (kind: 'BNB8' | 'BNB4', ...sizes: number[]) =>
      addon.storeWeight(
        kind,
        9,
        15,
        sizes.map((n) => ({ bytes: new Uint8Array(n) })),
        false,
      );
    addon.releaseStored(open('BNB8', 135, 36));
    addon.releaseStored(open('BNB4', 68, 12, 64));
    expect(() => open('BNB8', 134, 36)).toThrow('expected 135 bytes, found 134');
    expect(() => open('BNB8', 135, 60)).toThrow('expected 36 bytes, found 60');
    expect(() => open('BNB4', 67, 12, 64)).toThrow('expected 68 bytes, found 67');
    expect(() => open('BNB4', 68, 8, 64)).toThrow('expected 12 bytes, found 8');
    expect(() => open('BNB4', 68, 12, 60)).toThrow('expected 64 bytes, found 60');
    expect(() => open('BNB4', 68, 12)).toThrow('spans');
  });
});

/** AdamW compared with a scalar loop, for one tensor and for lists. */
import { expect } from 'vitest';
import { addon, atEveryLevel, expectClose, misaligned, numbers, run, sizes } from '../spec/fixtures';

atEveryLevel('AdamW', (at) => {
  at('AdamW', () => {
    for (const n of [...sizes, 40000]) {
      const [p, g, m] = [numbers(n, 1), numbers(n, 2), numbers(n, 3)];
      const v = numbers(n, 4).map(Math.abs);
      const h = [1e-2, 0.9, 0.98, 1e-8, 1 - 0.9 ** 3, 1 - 0.98 ** 3] as const;
      const made = run((make) =>
        addon.adamW([p, g, m, v], [make(n), make(n), make(n)], Float32Array.of(0.5), [0.1], ...h),
      );
      const wantM = m.map((mi, i) => 0.9 * mi + 0.1 * g[i]! * 0.5);
      const wantV = v.map((vi, i) => 0.98 * vi + 0.02 * (g[i]! * 0.5) ** 2);
      const wantP = p.map(
        (pi, i) => pi * (1 - 1e-3) - ((1e-2 / h[4]) * wantM[i]!) / (Math.sqrt(wantV[i]! / h[5]) + 1e-8),
      );
      [wantP, wantM, wantV].forEach((expected, i) => expectClose(made[i]!, expected, 1e-6));
    }
  });

  at('AdamW of a list gives the same bits as one tensor at a time, for any division of the list', () => {
    const h = [1e-2, 0.9, 0.98, 1e-8, 0.1, 0.04] as const;
    const lengths = [...sizes, 0, 40000, 3, 16384, 5];
    const parts = (n: number, i: number) =>
      [1, 2, 3, 4].map((seed) =>
        misaligned(numbers(n, seed + 9 * i), i % 4).map(seed === 4 ? Math.abs : (x) => x),
      );
    const tensors = lengths.map(parts);
    const decays = lengths.map((_, i) => (i % 3) / 10);
    const scale = Float32Array.of(0.5);
    const update = (list: Float32Array[], decay: number[], make: (n: number) => Float32Array) => {
      const made = list.flatMap((x, i) => (i % 4 === 1 ? [] : [make(x.length)]));
      addon.adamW(list, made, scale, decay, ...h);
      return made;
    };
    const together = run((make) => update(tensors.flat(), decays, make));
    const apart = tensors.flatMap((list, i) => update(list, [decays[i]!], (n) => new Float32Array(n)));
    const bytes = (x: Float32Array) => Buffer.from(x.buffer, x.byteOffset, x.byteLength);
    expect(together.length).toBe(apart.length);
    together.forEach((x, i) => expect(bytes(x).equals(bytes(apart[i]!)), `result ${i}`).toBe(true));
    expect(() => addon.adamW(tensors[0]!, [], scale, [0], ...h)).toThrow('made: expected 3 entries, found 0');
  });
});

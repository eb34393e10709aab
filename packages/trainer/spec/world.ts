/** Several ranks in one process, for specs: each is an asynchronous course of its own, and they meet in an exchange. */
import type { Tensor } from '@blip2/nn';
import { dispose, tensor } from '@blip2/nn';
import type { World } from '../src/train/world';

interface Guest {
  what: string;
  value: unknown;
  go: (all: unknown[]) => void;
  fail: (error: Error) => void;
}

/** A place where `size` ranks wait for each other and see what each has brought. */
function exchange(size: number) {
  let guests = new Map<number, Guest>();
  return <T>(rank: number, what: string, value: T): Promise<T[]> =>
    new Promise((resolve, fail) => {
      if (guests.has(rank)) return fail(new Error(`rank ${rank} came twice`));
      guests.set(rank, { what, value, go: (all) => resolve(all as T[]), fail });
      if (guests.size < size) return;
      const all = [...guests].sort(([a], [b]) => a - b).map(([, guest]) => guest);
      guests = new Map();
      const calls = new Set(all.map((guest) => guest.what));
      const values = all.map((guest) => guest.value);
      const error = new Error(`the ranks differ in what they call: ${[...calls].join(', ')}`);
      for (const guest of all) {
        if (calls.size > 1) guest.fail(error);
        else guest.go(values);
      }
    });
}

/** The ranks of a world in this process. @throws Error when they differ in what they call */
export function worldOf(size: number): World[] {
  const meet = exchange(size);
  return Array.from({ length: size }, (_, rank) => ({
    rank,
    size,
    sum: async (tensors) => {
      const shapes = tensors.map(({ shape }) => shape);
      const own = await Promise.all(tensors.map(async (x) => Float32Array.from(await x.data())));
      dispose(tensors);
      const all = await meet(rank, `sum of ${JSON.stringify(shapes)}`, own);
      return shapes.map((shape, i) => {
        const total = new Float32Array(own[i].length);
        for (const values of all) values[i].forEach((value, at) => (total[at] += value));
        return tensor(total, shape) as Tensor;
      });
    },
    any: async (flag) => (await meet(rank, 'any', flag)).includes(true),
    barrier: async () => void (await meet(rank, 'barrier', undefined)),
  }));
}

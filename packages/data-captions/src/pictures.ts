/** The pictures of rows: captions of one picture share what is computed of it, so an epoch may keep them together. */
import type { Example } from './example';
import { permutation } from './random';

/** The number of the picture of each item, by `name`: 0, 1, … in the order of their first items. */
export function pictureNumbers<T>(items: readonly T[], name: (item: T, i: number) => string): Int32Array {
  const numbers = new Map<string, number>();
  return Int32Array.from(items, (item, i) => {
    const key = name(item, i);
    if (!numbers.has(key)) numbers.set(key, numbers.size);
    return numbers.get(key)!;
  });
}

/** The first item of each picture. */
export function firstOfEach(pictures: Int32Array): number[] {
  const first: number[] = [];
  pictures.forEach((picture, i) => (first[picture] ??= i));
  return first;
}

/** Whether a picture has several examples. A picture is the name of its file. */
export function sharesPictures(examples: readonly Pick<Example, 'image'>[]): boolean {
  return new Set(examples.map(({ image }) => image)).size < examples.length;
}

/** First random stream of orders of pictures; see batches.ts and augment.ts for the others. */
const STREAMS = 0x40000000;

/**
 * `order`, an epoch's order of examples, with those of a picture one after the other: the pictures in an order of their own, from seed
 * and epoch, and the examples of each as they are in `order`. If no picture has several, it is `order` itself.
 */
export function keptTogether(
  order: Int32Array,
  pictures: Int32Array,
  { seed, epoch }: { seed: number; epoch: number },
): Int32Array {
  const count = pictures.reduce((most, picture) => Math.max(most, picture + 1), 0);
  if (count === order.length) return order;
  const members = Array.from({ length: count }, (): number[] => []);
  for (const i of order) members[pictures[i]].push(i);
  return Int32Array.from(
    [...permutation(seed, STREAMS + epoch, count)].flatMap((picture) => members[picture]),
  );
}

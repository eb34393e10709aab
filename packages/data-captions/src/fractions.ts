/** Random splits by fractions, in which no image is in two splits. */
import { DataError } from './errors';
import type { Example } from './example';
import { sameContent } from './image-source';
import { permutation } from './random';

/** Fractions of the images, 0 … 1; the rest is for training. */
export interface Fractions {
  validation?: number;
  test?: number;
}

/** Random stream of the splits; `limit` and the epochs use 0, 1, 2, … */
const STREAM = 0xffffffff;

/**
 * The split of each example. Rows with the same image, or with images of equal bytes, get the same split; the choice
 * depends on seed and data only.
 * @throws DataError for fractions out of range and for splits that would be empty
 */
export async function splitByFraction(
  examples: readonly Example[],
  { validation = 0, test = 0 }: Fractions,
  seed: number,
): Promise<string[]> {
  for (const [name, share] of Object.entries({ validation, test }))
    if (!(share >= 0 && share < 1))
      throw new DataError(`split fractions: ${name}: expected a number from 0 to below 1, found ${share}`);
  const groups = await sameContent(examples.map(({ image }) => image));
  const firsts = [...new Set(groups)].sort((a, b) => a - b);
  const counts = {
    test: Math.round(test * firsts.length),
    validation: Math.round(validation * firsts.length),
  };
  const empty = [
    test > 0 && counts.test === 0 && 'test',
    validation > 0 && counts.validation === 0 && 'validation',
    firsts.length - counts.test - counts.validation <= 0 && 'train',
  ].filter(Boolean);
  if (empty.length > 0)
    throw new DataError(
      `split fractions: with ${firsts.length} different images ${empty.join(' and ')} would be empty; choose other fractions`,
    );
  const order = permutation(seed, STREAM, firsts.length);
  const splitOf = new Map<number, string>();
  order.forEach((index, place) => {
    const split =
      place < counts.test ? 'test' : place < counts.test + counts.validation ? 'validation' : 'train';
    splitOf.set(firsts[index], split);
  });
  return Array.from(groups, (group) => splitOf.get(group)!);
}

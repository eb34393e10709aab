import { describe, expect, it } from 'vitest';
import { collectionOf, ranksOf, recall } from './index';

describe('recall', () => {
  it('counts an image as found if any of its texts is near', () => {
    // two images, the first with texts 0 and 1
    const scores = Float32Array.from([0.1, 0.9, 0.5, 0.8, 0.2, 0.3]);
    const own = [[0, 1], [2]];
    const found = recall(scores, own);
    expect(found.image_to_text).toEqual({ r1: 0.5, r5: 1, r10: 1 });
    expect(found.text_to_image.r1).toBeCloseTo(1 / 3);
    expect(found.chance.image_to_text.r1).toBeCloseTo((2 / 3 + 1 / 3) / 2);
    expect(found.chance.text_to_image).toEqual({ r1: 0.5, r5: 1, r10: 1 });
    expect(ranksOf(scores, own)).toEqual({ ofImages: [0, 1], ofTexts: [1, 0, 1] });
  });

  it('counts a text that several images have as found with any of them', () => {
    const { texts, own } = collectionOf([['a dog'], ['a dog', 'a cat', 'a dog'], ['a cow']]);
    expect([texts, own]).toEqual([
      ['a dog', 'a cat', 'a cow'],
      [[0], [0, 1], [2]],
    ]);
    const scores = Float32Array.from([0.1, 0.5, 0.9, 0.9, 0.1, 0.2, 0.2, 0.8, 0.3]);
    expect(ranksOf(scores, own)).toEqual({ ofImages: [2, 0, 1], ofTexts: [0, 2, 1] });
  });

  it('gives the chance of a random order', () => {
    const { chance } = recall(
      new Float32Array(144).map((_, i) => i),
      Array.from({ length: 12 }, (_, i) => [i]),
    );
    expect(chance.image_to_text.r1).toBeCloseTo(1 / 12);
    expect(chance.text_to_image.r5).toBeCloseTo(5 / 12);
    expect(chance.text_to_image.r10).toBeCloseTo(10 / 12);
  });

  it('is near chance for scores that are all the same', () => {
    const n = 40;
    const own = Array.from({ length: n }, (_, i) => [i]);
    const { image_to_text, text_to_image } = recall(new Float32Array(n * n), own);
    expect([image_to_text.r1, text_to_image.r1, image_to_text.r10]).toEqual([0, 0, 0]);
  });

  it('never counts NaN as found', () => {
    const { image_to_text } = recall(Float32Array.from([NaN, 0, 0, NaN]), [[0], [1]]);
    expect(image_to_text.r1).toBe(0);
  });

  it.each([
    [5, [[0], [1]]],
    [4, [[0, 1], []]],
    [4, [[0], [2]]],
  ])('refuses %i scores for %j', (length, own) => {
    expect(() => recall(new Float32Array(length), own)).toThrow('expected scores of 2 images with');
  });

  it.each([2, 3, 4])('of a model that gives all pairs one score is not right by luck: %i pictures', (n) => {
    const own = Array.from({ length: n }, (_, i) => [i]);
    const { image_to_text, text_to_image } = recall(new Float32Array(n * n), own);
    expect([image_to_text.r1, text_to_image.r1]).toEqual([0, 0]);
  });
});

import { describe, expect, it } from 'vitest';
import { nearestPairs, recall } from './index';

const SIMILARITIES = Float32Array.from([0.9, 0.8, 0.1, 0.7, 0.2, 0.3, 0.6, 0.5, 0.4]);
const OWN = [[1], [0], [2]];

describe('nearestPairs', () => {
  it('are the k nearest of each image and of each text', () => {
    expect(nearestPairs(SIMILARITIES, 3, 1).pairs).toEqual([[0, 1], [0], [0, 2]]);
    expect(nearestPairs(SIMILARITIES, 3, 9).pairs).toEqual([
      [0, 1, 2],
      [0, 1, 2],
      [0, 1, 2],
    ]);
  });

  it('are ordered by similarity and match, each way among its own k nearest', () => {
    const nearest = nearestPairs(SIMILARITIES, 3, 2);
    expect(nearest.pairs).toEqual([
      [0, 1],
      [0, 2],
      [0, 1, 2],
    ]);
    const { forImages, forTexts } = nearest.scores([
      [-1, 2],
      [1, 0],
      [-2, 3, 4],
    ]);
    const rounded = (values: Float32Array) => [...values].map((x) => Number(x.toFixed(3)));
    const not = -Infinity;
    expect(rounded(forImages)).toEqual([-0.1, 2.8, not, 1.7, not, 0.3, -1.4, 3.5, not]);
    expect(rounded(forTexts)).toEqual([-0.1, 2.8, not, 1.7, not, 0.3, not, 3.5, 4.4]);
    expect(recall(SIMILARITIES, OWN).image_to_text.r1).toBeCloseTo(1 / 3);
    const { image_to_text, text_to_image } = recall(forImages, OWN, forTexts);
    expect(image_to_text.r1).toBeCloseTo(2 / 3);
    expect(text_to_image.r1).toBeCloseTo(2 / 3);
  });
});

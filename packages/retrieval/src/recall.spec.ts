import { describe, expect, it } from 'vitest';
import { recall } from './index';

describe('recall', () => {
  it('counts an image as found if any of its texts is near', () => {
    // two images, the first with texts 0 and 1
    const scores = Float32Array.from([0.1, 0.9, 0.5, 0.8, 0.2, 0.3]);
    const found = recall(scores, Int32Array.from([0, 0, 1]));
    expect(found.image_to_text).toEqual({ r1: 0.5, r5: 1, r10: 1 });
    expect(found.text_to_image.r1).toBeCloseTo(1 / 3);
    expect(found.chance).toEqual({ image_to_text: 0.5, text_to_image: 0.5 });
  });

  it('is near chance for scores that are all the same', () => {
    const n = 40;
    const imageOf = Int32Array.from({ length: n }, (_, i) => i);
    const { image_to_text, text_to_image } = recall(new Float32Array(n * n), imageOf);
    expect([image_to_text.r1, text_to_image.r1, image_to_text.r10]).toEqual([0, 0, 0]);
  });

  it('never counts NaN as found', () => {
    const { image_to_text } = recall(Float32Array.from([NaN, 0, 0, NaN]), Int32Array.from([0, 1]));
    expect(image_to_text.r1).toBe(0);
  });

  it('refuses scores that do not fit the texts', () => {
    expect(() => recall(new Float32Array(5), Int32Array.from([0, 1]))).toThrow(
      'expected scores of images with 2 texts',
    );
  });
});

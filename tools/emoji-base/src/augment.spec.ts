import { describe, expect, it } from 'vitest';
import { placeImage, randomPlacement, UNMOVED } from './augment';
import { PIXEL_MEAN, PIXEL_STD } from './model-files';

const S = 8;
const bytes = Uint8Array.from({ length: S * S * 3 }, (_, i) => (i * 37) % 251);

/** The placed image back in 0 … 255, [3, S, S]. */
function placed(placement: Parameters<typeof placeImage>[2], from = bytes): number[] {
  const out = new Float32Array(3 * S * S + 5);
  placeImage(from, S, placement, out, 5);
  return [...out.subarray(5)].map((value, i) => {
    const channel = Math.floor(i / (S * S));
    return (value * PIXEL_STD[channel] + PIXEL_MEAN[channel]) * 255;
  });
}
const source = (channel: number, y: number, x: number) =>
  x < 0 || y < 0 || x >= S || y >= S ? 255 : bytes[(y * S + x) * 3 + channel];

describe('placeImage', () => {
  it('leaves an unmoved image as it is', () => {
    placed(UNMOVED).forEach((value, i) => {
      const [channel, y, x] = [Math.floor(i / (S * S)), Math.floor(i / S) % S, i % S];
      expect(value).toBeCloseTo(source(channel, y, x), 2);
    });
  });

  it.each([
    [3, -2],
    [-4, 4],
  ])('shifts by whole pixels (%i, %i) and fills with white', (dx, dy) => {
    placed({ dx, dy, zoom: 1 }).forEach((value, i) => {
      const [channel, y, x] = [Math.floor(i / (S * S)), Math.floor(i / S) % S, i % S];
      expect(value).toBeCloseTo(source(channel, y - dy, x - dx), 2);
    });
  });

  it('interpolates: half a pixel is the mean of two', () => {
    const moved = placed({ dx: 0.5, dy: 0, zoom: 1 });
    expect(moved[3 * S + 4]).toBeCloseTo((source(0, 3, 3) + source(0, 3, 4)) / 2, 2);
  });

  it('zooms about the centre: a smaller picture has a white rim, a white image stays white', () => {
    const small = placed({ dx: 0, dy: 0, zoom: 0.5 });
    expect(small[0]).toBeCloseTo(255, 2);
    expect(small[S * 4 + 4]).toBeCloseTo(
      [4, 5].flatMap((y) => [4, 5].map((x) => source(0, y, x))).reduce((a, b) => a + b) / 4,
      2,
    );
    const white = placed({ dx: 1.3, dy: -2.7, zoom: 1.1 }, new Uint8Array(S * S * 3).fill(255));
    for (const value of white) expect(value).toBeCloseTo(255, 2);
  });

  it('draws shifts of at most 4 pixels and zooms of at most 12 %', () => {
    expect(randomPlacement([0, 0.5, 1], 0)).toEqual({ dx: -4, dy: 0, zoom: 1.12 });
    expect(randomPlacement([9, 0.5, 0.5, 0.5], 1)).toEqual(UNMOVED);
  });
});

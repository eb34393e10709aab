import { describe, expect, it } from 'vitest';
import { shrink } from './pixels';

describe('shrink', () => {
  it('averages blocks, channel by channel', () => {
    const image = Float32Array.from({ length: 3 * 64 * 64 }, (_, i) => {
      const [channel, y, x] = [Math.floor(i / 4096), Math.floor(i / 64) % 64, i % 64];
      return 1000 * channel + 10 * y + x;
    });
    const small = shrink(image, 64, 64);
    expect(small).toHaveLength(3 * 32 * 32);
    expect(small[0]).toBe(5.5); // rows 0, 1 and columns 0, 1
    expect(small[2 * 1024 + 3 * 32 + 5]).toBe(2000 + 65 + 10.5);
  });

  it('keeps 32 pixels as they are and repeats fewer', () => {
    const same = Float32Array.from({ length: 3 * 1024 }, (_, i) => i);
    expect(shrink(same, 32, 32)).toEqual(same);
    const tiny = shrink(Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12), 2, 2);
    expect([tiny[0], tiny[31], tiny[1023], tiny[1024]]).toEqual([1, 2, 4, 5]);
  });

  it('handles sides that are no multiple of 32', () => {
    const flat = new Float32Array(3 * 224 * 50).fill(0.5);
    expect([...new Set(shrink(flat, 224, 50))]).toEqual([0.5]);
  });
});

import { inflateSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { decodeImage } from '@blip2/data-captions';
import { encodePng } from './png';

describe('encodePng', () => {
  it('is read back pixel by pixel', async () => {
    const rgb = Uint8Array.from({ length: 5 * 3 * 3 }, (_, i) => (i * 37) % 256);
    const image = await decodeImage(encodePng(rgb, 5, 3));
    expect([image.width, image.height]).toEqual([5, 3]);
    expect([...image.data]).toEqual([...rgb]);
  });

  it('stores unfiltered lines', () => {
    const png = encodePng(Uint8Array.of(1, 2, 3), 1, 1);
    const at = png.indexOf('IDAT');
    expect([...inflateSync(png.subarray(at + 4, at + 4 + png.readUInt32BE(at - 4)))]).toEqual([0, 1, 2, 3]);
  });

  it('refuses a wrong number of bytes', () => {
    expect(() => encodePng(new Uint8Array(5), 1, 2)).toThrow('expected 1×2×3 bytes, found 5');
  });
});

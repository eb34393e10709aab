import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { inflateSync } from 'node:zlib';
import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import type { Alpha } from './samples';
import { decodeImage, withImage } from './decode-image';
import { DataError } from './errors';
import { imagePixels } from './image-pixels';
import { parseImageConfig } from './pixels';
import { resizeBicubic } from './resize';

// Golden integers of PIL and HF's image processor: tools/parity/make_processor_fixture.py.
const fixtures = new URL('../fixtures/', import.meta.url);
interface Golden {
  alpha: Alpha;
  kind: 'rgb' | 'pixels' | 'pixel_values';
  shape: [number, number, number];
  at: number;
  bytes: number;
}
const cases = JSON.parse(readFileSync(new URL('processor.json', fixtures), 'utf8')) as Record<
  string,
  { mode: string; arrays: Golden[] }
>;
const body = inflateSync(readFileSync(new URL('processor.bin', fixtures)));
const golden = (a: Golden) => body.subarray(a.at, a.at + a.bytes);
const file = (name: string) => fileURLToPath(new URL(`images/${name}`, fixtures));

/** Decodes and resizes as `imagePixels` does, before normalising; [3,h,w] for "pixels", [H,W,3] for "rgb". */
async function integers(name: string, { alpha, kind, shape }: Golden): Promise<Uint8Array> {
  const image = await decodeImage(file(name), { alpha, image_orientation: 'ignore' });
  if (kind === 'rgb') return image.data;
  const [, height, width] = shape;
  const { data } = resizeBicubic(image, width, height);
  const n = width * height;
  return Uint8Array.from({ length: 3 * n }, (_, i) => data[(i % n) * 3 + Math.floor(i / n)]);
}

function difference(a: Uint8Array, b: Uint8Array) {
  const levels = Array.from(a, (v, i) => Math.abs(v - b[i]));
  return {
    length: a.length === b.length,
    max: Math.max(...levels),
    values: levels.filter((d) => d > 0).length,
  };
}

describe.each(Object.entries(cases))('%s', (name, { arrays }) => {
  const integral = arrays
    .filter((a) => a.kind !== 'pixel_values')
    .map((a) => ({ ...a, what: `${a.kind} ${a.shape}` }));
  it.each(integral)('$what, alpha $alpha: the integers of PIL', async (array) => {
    const found = difference(await integers(name, array), golden(array));
    expect(found).toEqual({ length: true, max: 0, values: 0 });
  });
});

/** The preprocessor_config.json of a checkpoint, with a small size. */
const config = (json = {}, alpha: Alpha = 'drop') =>
  parseImageConfig({ size: { height: 32, width: 32 }, ...json }, 'preprocessor_config.json', { alpha });

describe('imagePixels', () => {
  const normalised = Object.entries(cases).flatMap(([name, { arrays }]) =>
    arrays.filter((a) => a.kind === 'pixel_values').map((a) => ({ name, ...a })),
  );
  it.each(normalised)('$name, alpha $alpha: equals the reference bit for bit', async ({ name, ...array }) => {
    const bytes = golden(array);
    const expected = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
    const found = await imagePixels(file(name), config({}, array.alpha));
    expect(found).toEqual(expected);
    expect(await imagePixels(readFileSync(file(name)), config({}, array.alpha))).toEqual(expected);
  });

  it('ignores a colour profile', async () => {
    const plain = await sharp(file('rgb-37x23.png')).png().toBuffer();
    const profiled = await sharp(plain).withIccProfile('p3').png().toBuffer();
    const { data } = await decodeImage(profiled);
    const samples = await sharp(profiled, { ignoreIcc: true }).raw().toBuffer();
    expect((await sharp(profiled).metadata()).hasProfile).toBe(true);
    expect(data).toEqual(new Uint8Array(samples));
    expect(data).not.toEqual(new Uint8Array(await sharp(profiled).raw().toBuffer())); // the profile changes pixels
  });

  it('takes the first frame of an animation', async () => {
    const frame = (background: string) =>
      sharp({ create: { width: 5, height: 4, channels: 3, background } })
        .png()
        .toBuffer();
    const gif = await sharp([await frame('#ff0000'), await frame('#0000ff')], { join: { animated: true } })
      .gif()
      .toBuffer();
    const { data, height } = await decodeImage(gif);
    expect([height, ...data.subarray(0, 3)]).toEqual([4, 255, 0, 0]);
  });

  it.each([
    ['size', { size: { shortest_edge: 224 } }],
    ['resample', { resample: 2 }],
    ['do_center_crop', { do_center_crop: true }],
    ['image_std', { image_std: [1, 1, 0] }],
    ['rescale_factor', { rescale_factor: 'x' }],
  ])('refuses a preprocessor_config.json with another %s', (name, json) => {
    expect(() => config(json)).toThrow(DataError);
    expect(() => config(json)).toThrow(name);
  });

  it('applies do_rescale and do_normalize', async () => {
    const raw = await imagePixels(
      file('rgb-64x64.png'),
      config({ size: 64, do_rescale: false, do_normalize: false }),
    );
    const { data } = await decodeImage(file('rgb-64x64.png'));
    expect([raw[0], raw[64 * 64], raw[2 * 64 * 64]]).toEqual([...data.subarray(0, 3)]);
  });
});

describe('resizeBicubic', () => {
  it('returns an image of the right size unchanged', async () => {
    const image = await decodeImage(file('rgb-64x64.png'));
    expect(resizeBicubic(image, 64, 64)).toBe(image);
  });

  it('keeps a constant image constant', () => {
    const image = { data: new Uint8Array(17 * 29 * 3).fill(201), width: 17, height: 29 };
    for (const [w, h] of [
      [5, 40],
      [40, 5],
      [1, 1],
    ]) {
      expect(new Set(resizeBicubic(image, w, h).data)).toEqual(new Set([201]));
    }
  });
});

describe('images in memory', () => {
  it('a batch of large images is decoded one after another, a batch of small ones at the same time', async () => {
    const large = await sharp({ create: { width: 8000, height: 8000, channels: 4, background: '#12345678' } })
      .png()
      .toBuffer();
    const together = await mostAtOnce([large, large, large]);
    expect(together).toBe(1);
    expect(await mostAtOnce(Array.from({ length: 4 }, () => readFileSync(file('rgb-64x64.png'))))).toBe(4);
  }, 60_000);

  /** Number of images that are decoded at the same time. */
  async function mostAtOnce(images: Uint8Array[]): Promise<number> {
    let [now, most] = [0, 0];
    await Promise.all(
      images.map((bytes) =>
        withImage(bytes, { alpha: 'drop' }, async () => {
          most = Math.max(most, ++now);
          await new Promise((resolve) => setTimeout(resolve, 50));
          now--;
        }),
      ),
    );
    return most;
  }
});

describe('bad images', () => {
  const png = readFileSync(file('rgb-37x23.png'));
  const jpeg = readFileSync(file('rgb-56x40.jpg'));
  const changed = (bytes: Buffer, at: number, value: number[]) => {
    const copy = Buffer.from(bytes);
    copy.set(value, at);
    return copy;
  };
  const svg =
    '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>';
  it.each<[string, Uint8Array, RegExp]>([
    ['an empty file', Buffer.alloc(0), /found an empty file/],
    [
      'a HEIC photo',
      Buffer.from('\0\0\0\x18ftypheic\0\0\0\0mif1heic'),
      /found a HEIC image; convert it to JPEG/,
    ],
    ['a JPEG XL image', Buffer.from('ff0a', 'hex'), /found a JPEG XL image/],
    ['a PGM image', Buffer.from('P5 1 1 255 x'), /found a PNM image/],
    ['a Git LFS pointer', Buffer.from('version https://git-lfs.github.com/spec/v1\n'), /git lfs pull/],
    ['text', Buffer.from('<html>404</html>'), /expected a JPEG, PNG.*remove its row/],
    ['an SVG drawing', Buffer.from(svg), /found an SVG drawing/],
    ['a cut-off PNG', png.subarray(0, png.length / 2), /cannot be decoded/],
    ['a cut-off JPEG', jpeg.subarray(0, jpeg.length / 2), /cannot be decoded/],
    ['a PNG with a wrong checksum', changed(png, png.length - 30, [1, 2, 3, 4]), /cannot be decoded/],
    ['a PNG that claims to be huge', changed(png, 16, [0, 1, 0, 0, 0, 1, 0, 0]), /cannot be decoded/],
    ['a signature with nothing behind', png.subarray(0, 8), /cannot be decoded/],
  ])('%s', async (_, bytes, message) => {
    const error = await decodeImage(bytes).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(DataError);
    expect((error as DataError).message).toMatch(message);
  });

  it('names the file', async () => {
    await expect(decodeImage('/gone/x.png')).rejects.toThrow(/^\/gone\/x\.png: the image cannot be read/);
  });
});

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inflateSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import type { Alpha } from './samples';
import type { RgbImage } from './samples';
import { decodeImage, decodingFault } from './decode-image';
import { DataError } from './errors';
import { mayPass } from './image-errors';
import type { ImageOrientation } from './orientation';

// Golden pixels of PIL: tools/parity/make_decoding_fixture.py.
interface Golden {
  width: number;
  height: number;
  sha256?: string;
  rgb?: string;
}
type Results = Record<ImageOrientation, Record<Alpha, Golden>>;
const cases = JSON.parse(
  readFileSync(new URL('../fixtures/decoding.json', import.meta.url), 'utf8'),
) as Record<string, { file: string; pil: Results | null }>;

const WAYS = (['exif', 'ignore'] as const).flatMap((image_orientation) =>
  (['drop', 'white'] as const).map((alpha) => ({ image_orientation, alpha })),
);
const fileOf = (name: string) => Buffer.from(cases[name].file, 'base64');
const names = Object.keys(cases).filter((name) => !name.endsWith('.avif'));

function summary({ data, width, height }: RgbImage): Golden {
  return { width, height, sha256: createHash('sha256').update(data).digest('hex') };
}

describe('decodeImage has the pixels of PIL', () => {
  it.each(names.filter((name) => cases[name].pil))('%s', async (name) => {
    for (const way of WAYS)
      expect(summary(await decodeImage(fileOf(name), way)), JSON.stringify(way)).toEqual(
        cases[name].pil![way.image_orientation][way.alpha],
      );
    expect(summary(await decodeImage(fileOf(name)))).toEqual(cases[name].pil!.exif.white);
  });

  it.each(names.filter((name) => !cases[name].pil))('%s is refused, as by PIL', async (name) => {
    await expect(decodeImage(fileOf(name))).rejects.toThrow(DataError);
  });
});

describe('AVIF', () => {
  it.each(Object.keys(cases).filter((name) => name.endsWith('.avif')))('%s', async (name) => {
    for (const way of WAYS) {
      const { data, ...size } = await decodeImage(fileOf(name), way);
      const { rgb, ...expected } = cases[name].pil![way.image_orientation][way.alpha];
      const golden = inflateSync(Buffer.from(rgb!, 'base64'));
      expect(size).toEqual(expected);
      const levels = Array.from(data, (value, i) => Math.abs(value - golden[i]));
      // the last sample of an odd side belongs to one pixel, from which it cannot be found as exactly
      expect(Math.max(...levels), JSON.stringify(way)).toBeLessThanOrEqual(name.startsWith('odd') ? 9 : 3);
      expect(levels.reduce((sum, level) => sum + level) / levels.length).toBeLessThanOrEqual(0.7);
    }
  });
});

it('a lack of memory is not called damage', () => {
  const vips = new Error('vips_image_write_to_memory: out of memory -- size == 45MB');
  expect(decodingFault(vips)).toBe(
    'there is no memory to decode the image; end other programs, or allow this one more memory',
  );
  const v8 = decodingFault(new RangeError('Array buffer allocation failed'));
  expect(v8).toBe(decodingFault(vips));
  expect(decodingFault(new Error('VipsJpeg: premature end'))).toMatch(/it is damaged or cut off/);
});

it('a fault of the disk or of memory may pass, one of the image does not', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'blip2-faults-'));
  const file = join(folder, 'x.tar');
  await writeFile(file, Buffer.alloc(600));
  const message = (image: string) => decodeImage(image).then(String, String);
  expect(mayPass(await message(join(folder, 'gone.png')))).toBe(true);
  expect(mayPass(await message(`${file}#bytes=512+100`))).toBe(true);
  expect(mayPass(decodingFault(new Error('out of memory')))).toBe(true);
  expect(mayPass(await message(file))).toBe(false);
  expect(mayPass(decodingFault(new Error('VipsJpeg: premature end')))).toBe(false);
});

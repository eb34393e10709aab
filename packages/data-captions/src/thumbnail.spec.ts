import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { expect, it } from 'vitest';
import { thumbnail } from './thumbnail';

it('is a small WebP picture, upright and on white', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'blip2-thumbnail-'));
  const [turned, clear] = [join(folder, 'turned.jpg'), join(folder, 'clear.png')];
  const drawn = (channels: 3 | 4, background: object) =>
    sharp({ create: { width: 300, height: 100, channels, background } });
  await drawn(3, { r: 255, g: 255, b: 255 }).withMetadata({ orientation: 6 }).jpeg().toFile(turned);
  await drawn(4, { r: 0, g: 0, b: 0, alpha: 0 }).png().toFile(clear);
  expect(await sizeOf(turned)).toEqual([20, 60, 255]);
  expect(await sizeOf(clear)).toEqual([60, 20, 255]);
});

/** Width, height and the first value of the thumbnail. */
async function sizeOf(file: string): Promise<number[]> {
  const [head, base64] = (await thumbnail(file, 60))!.split(',');
  expect(head).toBe('data:image/webp;base64');
  const { data, info } = await sharp(Buffer.from(base64, 'base64'))
    .raw()
    .toBuffer({ resolveWithObject: true });
  return [info.width, info.height, data[0]];
}

it('is absent for a file that is no picture, or is gone', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'blip2-thumbnail-'));
  await writeFile(join(folder, 'a.png'), 'text');
  expect(await thumbnail(join(folder, 'a.png'), 60)).toBeUndefined();
  expect(await thumbnail(join(folder, 'b.png'), 60)).toBeUndefined();
});

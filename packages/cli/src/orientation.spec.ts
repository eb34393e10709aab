import { mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { crc32 } from 'node:zlib';
import { beforeAll, describe, expect, it } from 'vitest';
import { cli, fitArgs, IMAGE, TINY } from '../spec/testing';
import { openProcessor } from './model';
import type { ImageFlags } from './options';
import { decodingOf } from './options';

/** A PNG of 61 × 97 pixels with EXIF orientation 6. */
async function lying(): Promise<Buffer> {
  const png = await readFile(join(dirname(IMAGE), 'grey.png'));
  const exif = Buffer.from('4d4d002a0000000800010112000300000001000600000000000000000000', 'hex');
  const body = Buffer.concat([Buffer.from('eXIf'), exif]);
  const [length, check] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(exif.length);
  check.writeUInt32BE(crc32(body));
  return Buffer.concat([png.subarray(0, 33), length, body, check, png.subarray(33)]); // behind IHDR
}

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'blip2-orientation-'));
  for (const split of ['train', 'test']) {
    await mkdir(join(root, split));
    await writeFile(join(root, split, 'photo.png'), await lying());
    await writeFile(join(root, split, 'metadata.jsonl'), '{"file_name":"photo.png","text":"a red thing"}\n');
  }
});

const WAYS = [[], ['--image-orientation', 'exif'], ['--image-orientation', 'ignore']];

describe('photos with an EXIF orientation', () => {
  it('are upright in data check, unless it is ignored', async () => {
    const sides = async (options: string[]) => {
      const { out } = await cli(['data', 'check', root, '--json', ...options]);
      const { width, height } = JSON.parse(out).splits[0].sides;
      return [width.max, height.max];
    };
    expect(await Promise.all(WAYS.map(sides))).toEqual([
      [97, 61],
      [97, 61],
      [61, 97],
    ]);
  });

  it('are upright in fit, unless it is ignored', async () => {
    const losses: unknown[] = [];
    for (const [i, options] of WAYS.entries()) {
      const run = join(root, `run-${i}`);
      const { code, err } = await cli(fitArgs(root, run, ...options));
      expect(code, err).toBe(0);
      const rows = (await readFile(join(run, 'metrics.jsonl'), 'utf8')).trim().split('\n');
      losses.push(rows.map((row) => JSON.parse(row) as { loss?: number }).find(({ loss }) => loss)!.loss);
    }
    expect(losses[1]).toBe(losses[0]);
    expect(losses[2]).not.toBe(losses[0]);
  });

  it('are upright for caption, answer and evaluate, unless it is ignored', async () => {
    const photo = join(root, 'train', 'photo.png');
    const pixels = async (flags: ImageFlags) => (await openProcessor(TINY, decodingOf(flags))).pixels(photo);
    const upright = await pixels({});
    expect(await pixels({ imageOrientation: 'exif' })).toEqual(upright);
    expect(await pixels({ imageOrientation: 'ignore' })).not.toEqual(upright);
  });

  it('has no other values', async () => {
    const args = ['caption', join(root, 'train', 'photo.png'), '--model', TINY];
    const { code, err } = await cli([...args, '--image-orientation', 'upright']);
    expect([code, err.includes('exif, ignore')]).toEqual([2, true]);
  });
});

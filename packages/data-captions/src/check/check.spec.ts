import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../../spec/model-folder';
import { openDataset } from '../dataset';
import { checkData } from './check';
import { suspicions } from './texts';

const pictures = fileURLToPath(new URL('../../fixtures/images/', import.meta.url));
const datasets = fileURLToPath(new URL('../../fixtures/datasets/', import.meta.url));

async function data(rows: Record<string, [file: string, text: string][]>): Promise<string> {
  const dir = await temporaryFolder();
  for (const [split, list] of Object.entries(rows)) {
    await mkdir(join(dir, split));
    for (const [i, [file]] of list.entries())
      await copyFile(join(pictures, file), join(dir, split, `${i}-${file}`));
    const lines = list.map(([file, text], i) => JSON.stringify({ file_name: `${i}-${file}`, text }));
    await writeFile(join(dir, split, 'metadata.jsonl'), lines.join('\n'));
  }
  return dir;
}

describe('checkData', () => {
  it('finds equal pictures, leaks, odd pictures and repeated texts', async () => {
    const dir = await data({
      train: [
        ['rgb-64x64.png', 'a wave'],
        ['rgb-64x64.png', 'a wave'],
        ['exif6-48x32.jpg', 'a rotated wave'],
        ['cmyk-48x32.jpg', 'a printed wave'],
        ['rgb-200x1.png', 'a line'],
      ],
      test: [
        ['rgb-64x64.png', 'the same wave'],
        ['rgba-33x47.png', 'a transparent wave'],
      ],
    });
    const report = await checkData(dir);
    expect(report.usable).toBe(true);
    expect(report.duplicates.map((group) => group.length)).toEqual([3]);
    expect(report.leaks).toMatchObject([{ splits: ['train', 'test'] }]);
    expect(report.leaks[0].sources).toHaveLength(3);
    const odd = report.odd.map(({ what }) => what).join('\n');
    for (const text of ['CMYK', 'long: 200×1', 'transparent: blended']) expect(odd).toContain(text);
    expect(odd).not.toContain('EXIF');
    const plain = await checkData(dir, { decoding: { image_orientation: 'ignore', alpha: 'drop' } });
    const oddOfPlain = plain.odd.map(({ what }) => what).join('\n');
    expect(oddOfPlain).toContain('EXIF orientation 6 is ignored');
    expect(oddOfPlain).toContain('transparency is ignored');
    expect(report.commonest).toEqual([{ text: 'a wave', rows: 2 }]);
    expect(report.splits[0]).toMatchObject({ rows: 5, images: 5, captions: 5, formats: { png: 3, jpeg: 2 } });
    expect(report.splits[0].words).toMatchObject({ min: 2, median: 2, max: 3 });
  });

  it('reports unreadable and one-colour images, and continues', async () => {
    const dir = await temporaryFolder();
    const flat = sharp({ create: { width: 40, height: 40, channels: 3, background: 'red' } });
    await flat.png().toFile(join(dir, 'flat.png'));
    await writeFile(join(dir, 'text.jpg'), 'no picture');
    await writeFile(join(dir, 'empty.png'), '');
    await copyFile(join(pictures, 'rgb-64x64.png'), join(dir, 'good.png'));
    const rows = ['flat.png', 'text.jpg', 'empty.png', 'good.png'].map((file_name) => ({
      file_name,
      text: 'a thing',
    }));
    await writeFile(join(dir, 'metadata.jsonl'), rows.map((row) => JSON.stringify(row)).join('\n'));
    const report = await checkData(dir);
    expect(report.bad_rows.map(({ found }) => found.slice(dir.length + 1).split(':')[0])).toEqual([
      'text.jpg',
      'empty.png',
    ]);
    expect(report.odd.map(({ what }) => what)).toEqual(['one colour only']);
    expect(report).toMatchObject({
      usable: false,
      unusable: 2,
      splits: [{ split: null, rows: 4, bad_rows: 2, images: 2 }],
    });
  });

  it('refuses a data set, or a split, without rows', async () => {
    const dir = await data({ train: [['rgb-64x64.png', 'a wave']], test: [] });
    await expect(checkData(dir)).rejects.toThrow(`${dir}: no rows in split "test"`);
    const tar = join(dir, 'empty.tar');
    await writeFile(tar, Buffer.alloc(1024));
    await expect(checkData(tar)).rejects.toThrow(`${tar}: no rows; expected at least one row`);
    await expect(openDataset(tar)).rejects.toThrow(`${tar}: no rows; expected at least one row`);
  });

  it.each(['parquet', 'webdataset', 'coco', 'vqav2', 'lavis', 'csv'])('reads %s', async (name) => {
    const report = await checkData(join(datasets, name));
    expect(report.usable).toBe(true);
    expect(report.splits.every(({ images }) => images > 0)).toBe(true);
  });
});

describe('suspicious texts', () => {
  it.each([
    ['null', 'a placeholder instead of words'],
    ['???', 'no letter or digit'],
    ['see https://example.org', 'an address'],
    ['a <b>cat</b>', 'markup'],
    ['IMG_2041.jpg', 'a file name'],
    ['cafÃ©', 'broken characters'],
    ['a\u0000b c', 'control characters'],
    ['word '.repeat(51), 'more than 50 words'],
    ['A BLACK CAT', 'all capitals'],
    ['cat', 'a single word'],
  ])('%j', (text, what) => expect(suspicions(text, 'caption')).toContain(what));

  it('do not include ordinary captions and short answers', () => {
    for (const text of ['a dog & a cat', 'Two women, one "STOP" sign', 'ein Café', '3 of them']) {
      expect(suspicions(text, 'caption')).toEqual([]);
    }
    expect(suspicions('none', 'answer')).toEqual([]);
  });
});

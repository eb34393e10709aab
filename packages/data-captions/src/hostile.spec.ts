/**
 * Damaged and hostile images and data files: each is read, or refused with a DataError; nothing crashes, hangs or takes
 * unbounded memory. `npm test` tries a few hundred, `npm run sweep` thousands.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { cp, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { crc32, deflateSync } from 'node:zlib';
import { beforeAll, describe, expect, it } from 'vitest';
import {
  countOf,
  damaged,
  dice,
  LONG,
  misshapenJson,
  readOrRefused,
  reportAtTheEnd,
  SCALE,
  WAYS,
} from '../spec/hostile';
import { temporaryFolder } from '../spec/model-folder';
import { imageFacts } from './check/images';
import { openDataset } from './dataset';
import { decodeImage } from './decode-image';
import { DataError } from './errors';
import { readImage } from './image-source';

const fixtures = fileURLToPath(new URL('../fixtures/', import.meta.url));
reportAtTheEnd();

/** A PNG with the size in its header and with the data `raw`. */
function png(width: number, height: number, raw: Buffer): Buffer {
  const chunk = (tag: string, body: Buffer) => {
    const head = Buffer.alloc(4);
    head.writeUInt32BE(body.length);
    const named = Buffer.concat([Buffer.from(tag), body]);
    const sum = Buffer.alloc(4);
    sum.writeUInt32BE(crc32(named));
    return Buffer.concat([head, named, sum]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header[8] = 8; // bits per sample, grey
  const parts = [chunk('IHDR', header), chunk('IDAT', deflateSync(raw)), chunk('IEND', Buffer.alloc(0))];
  return Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), ...parts]);
}

describe('images', () => {
  const folder = join(fixtures, 'images');
  const pictures = readdirSync(folder).map((name) => ({ name, bytes: readFileSync(join(folder, name)) }));

  it('damaged: decoded or refused', { timeout: LONG }, async () => {
    for (let round = 0; round < 2 * SCALE; round++)
      for (const [p, { name, bytes }] of pictures.entries())
        for (let way = 0; way < WAYS; way++) {
          const what = `${name}, mutation ${way}, round ${round}`;
          const hostile = damaged(bytes, way, 1e6 * round + 100 * p + way);
          await readOrRefused(`image ${name.slice(name.lastIndexOf('.'))}`, what, async () => {
            const { data, width, height } = await decodeImage(hostile);
            expect(data.length, what).toBe(3 * width * height);
          });
        }
    const { read, refused } = countOf('image');
    expect(read + refused).toBeGreaterThanOrEqual(300);
    expect(read).toBeGreaterThan(20);
    expect(refused).toBeGreaterThan(100);
  });

  it('bombs are refused by their number of pixels, before decompression', async () => {
    const bombs = {
      'a header with 4 billion pixels': png(65_535, 65_535, Buffer.alloc(100)),
      "a header beyond the format's limit": png(2 ** 31 - 1, 2 ** 31 - 1, Buffer.alloc(10)),
      'a real one, 196 million pixels in 190 kB': png(14_000, 14_000, Buffer.alloc(14_001 * 14_000)),
      'a GIF screen of 65535 × 65535': Buffer.from(
        '47494638396affffffff800000000000ffffff2c00000000ffffffff0002024401003b',
        'hex',
      ),
    };
    const before = process.memoryUsage().rss;
    for (const [what, bytes] of Object.entries(bombs))
      await expect(decodeImage(bytes), what).rejects.toThrow(DataError);
    await expect(decodeImage(bombs['a real one, 196 million pixels in 190 kB'])).rejects.toThrow(
      /pixel limit/,
    );
    expect(process.memoryUsage().rss - before).toBeLessThan(300 << 20);
  });

  it('other files are refused, even with the name of an image', async () => {
    const dir = await temporaryFolder();
    const others = [
      '',
      '<svg xmlns="http://www.w3.org/2000/svg"/>',
      '%PDF-1.4',
      '#!/bin/sh\n',
      'BM',
      '\0'.repeat(999),
      'GIF8',
      '\x89PNG\r\n\x1a\n',
      '\xff\xd8\xff',
      'RIFF\0\0\0\0WEBP',
      'II*\0',
      '\0\0\0\x20ftypavif',
    ];
    for (const [i, text] of others.entries()) {
      const file = join(dir, `${i}.png`);
      await writeFile(file, Buffer.from(text, 'latin1'));
      await expect(decodeImage(file), text).rejects.toThrow(DataError);
      expect((await imageFacts(file)).unreadable, text).toBeTruthy();
    }
    await expect(decodeImage(dir)).rejects.toThrow(/cannot be read/);
    await expect(decodeImage('a\0b')).rejects.toThrow(DataError);
  });
});

describe('data files', () => {
  const datasets = join(fixtures, 'datasets');
  const FILES = [
    'parquet/data/train-00000-of-00001.parquet',
    'parquet-vqa/train.parquet',
    'webdataset/train-000000.tar',
    'webdataset/test-000000.tar',
    'coco/annotations/captions_train2017.json',
    'vqav2/v2_OpenEnded_mscoco_val2014_questions.json',
    'vqav2/v2_mscoco_val2014_annotations.json',
    'lavis/coco_karpathy_train.json',
    'csv/metadata.csv',
    'csv/rows.tsv',
  ];

  /** Replaces one file in a copy of the data sets, so that its images are found. */
  let copy: string;
  beforeAll(async () => {
    copy = await temporaryFolder();
    await cp(datasets, copy, { recursive: true });
  });
  async function instead(name: string, bytes: string | Buffer, kind: string, what: string): Promise<void> {
    const file = join(copy, name);
    await writeFile(file, bytes);
    await readOrRefused(kind, `${name} ${what}`, async () => {
      const { examples } = await openDataset(file, { skip_bad: true });
      for (const { image } of examples)
        await readOrRefused('image of a damaged file', image, () => readImage(image));
    });
    await cp(join(datasets, name), file);
  }

  it('damaged bytes: read or refused, images included', { timeout: LONG }, async () => {
    for (const [f, name] of FILES.entries()) {
      const bytes = readFileSync(join(datasets, name));
      for (let i = 0; i < 11 * SCALE; i++) {
        const hostile = damaged(bytes, i, 1000 * f + i);
        await instead(name, hostile, `file ${name.slice(name.lastIndexOf('.'))}`, `mutation ${i}`);
      }
    }
    const { read, refused } = countOf('file');
    expect(read).toBeGreaterThan(5);
    expect(refused).toBeGreaterThan(20);
  });

  it('misshapen JSON: read or refused', { timeout: LONG }, async () => {
    for (const [f, name] of FILES.filter((one) => one.endsWith('.json')).entries()) {
      const json: unknown = JSON.parse(readFileSync(join(datasets, name), 'utf8'));
      for (let i = 0; i < 40 * SCALE; i++) {
        const hostile = misshapenJson(json, 1e5 * f + i);
        await instead(name, hostile, 'misshapen COCO, VQA, LAVIS', String(i));
      }
    }
    expect(countOf('misshapen COCO').read).toBeGreaterThan(10);
  });

  it('misshapen rows of JSON Lines: read or refused', { timeout: LONG }, async () => {
    const dir = await temporaryFolder();
    await writeFile(join(dir, 'a.png'), readFileSync(join(fixtures, 'images/rgb-1x1.png')));
    const row = {
      image: 'a.png',
      caption: ['a', 'b'],
      question: 'which?',
      answers: [{ answer: 'yes' }, 'no'],
      split: 'train',
      more: { x: 1 },
    };
    const file = join(dir, 'rows.jsonl');
    for (let i = 0; i < 100 * SCALE; i++) {
      const rows = Array.from({ length: 3 }, (_, r) =>
        r === 1 ? JSON.stringify(row) : misshapenJson(row, 10 * i + r),
      );
      await writeFile(file, rows.join('\n'));
      await readOrRefused('misshapen JSON Lines', `${i}`, () => openDataset(file, { skip_bad: i % 2 === 0 }));
    }
  });

  it('fuzzed text: read or refused', { timeout: LONG }, async () => {
    const dir = await temporaryFolder();
    await mkdir(join(dir, 'd'));
    const PIECES = [
      '"',
      "'",
      ',',
      '\t',
      '\n',
      '\r\n',
      '{',
      '}',
      '[',
      ']',
      ':',
      '\\',
      '\\u0000',
      '\ufeff',
      '\0',
      'é',
      '\u2028',
      'null',
      '1e999',
      '-',
      'image',
      'caption',
      'file_name',
      'text',
      'question',
      'answer',
      'answers',
      'split',
      'train',
      'a.png',
      '../',
      '__proto__',
      '"image":',
      '"images":',
      '"annotations":',
      '"questions":',
      ' ',
      'x'.repeat(300),
    ];
    const ENDINGS = ['jsonl', 'csv', 'tsv', 'json'];
    for (let i = 0; i < 200 * SCALE; i++) {
      const roll = dice(7000 + i);
      const text = Array.from({ length: roll(40) }, () => PIECES[roll(PIECES.length)]).join('');
      const ending = ENDINGS[i % ENDINGS.length];
      const file = join(dir, 'd', `x.${ending}`);
      await writeFile(file, text);
      await readOrRefused(`text .${ending}`, JSON.stringify(text), () =>
        openDataset(file, { skip_bad: i % 3 === 0 }),
      );
    }
  });

  it('files of unbounded memory or time are refused', { timeout: LONG }, async () => {
    const dir = await temporaryFolder();
    const deep = '['.repeat(200_000);
    const closed = `${deep}${']'.repeat(200_000)}`;
    const files: Record<string, string | Buffer> = {
      'deep.jsonl': `{"image": "a.png", "caption": ${closed}}\n${deep}`,
      'deep.json': closed,
      'deep-images.json': `{"images": [${closed}], "annotations": [{"image_id": ${closed}}]}`,
      'long.jsonl': `{"image": "${'x'.repeat(5e6)}", "caption": "a"}`,
      'long.csv': `image,caption\n${'"'.repeat(5_000_001)}`,
      'wide.csv': `${'a,'.repeat(300_000)}b\n1,2`,
      'deep.csv': `image,caption\na.png,"${closed}"`,
      'huge-member.tar': tarMember('a.jpg', 2 ** 33 - 1),
      'huge-text.tar': tarMember('a.json', 2 ** 33 - 1),
    };
    for (const [name, content] of Object.entries(files)) {
      const file = join(dir, name);
      await writeFile(file, content);
      expect(await readOrRefused('without bound', name, () => openDataset(file)), name).toBe(false);
    }
    const tar = join(dir, 'huge-member.tar');
    for (const place of ['bytes=0+8589934591', 'bytes=99999999999999+5', 'bytes=0+99999999999999999999'])
      expect(await readOrRefused('without bound', place, () => readImage(`${tar}#${place}`)), place).toBe(
        false,
      );
  });
});

/** A tar file with a member of `size` bytes in its header, of which only a few follow. */
function tarMember(name: string, size: number): Buffer {
  const header = Buffer.alloc(512);
  header.write(name, 0);
  header.write('0000644\0', 100);
  header.write(size.toString(8).padStart(11, '0') + '\0', 124);
  header.write('00000000000\0', 136);
  header.write('        ', 148);
  header.write('0', 156);
  header.write('ustar\0' + '00', 257);
  const sum = header.reduce((all, byte) => all + byte, 0);
  header.write(sum.toString(8).padStart(6, '0') + '\0 ', 148);
  return Buffer.concat([header, Buffer.alloc(1024, 'x')]);
}

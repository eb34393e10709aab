/**
 * Damaged and hostile inputs: every one is read, or refused with a DataError; nothing crashes or hangs. A few hundred of each kind
 * here; `npm run sweep` makes thousands, and adds the picture collections of Debian packages where they are installed.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { crc32, deflateSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../spec/model-folder';
import { imageFacts } from './check/images';
import { openDataset } from './dataset';
import { decodeImage } from './decode-image';
import { DataError } from './errors';
import { readImage } from './image-source';
import { randomWord } from './random';

/** How many times more than in an ordinary run. */
const SCALE = Number(process.env.BLIP2_SWEEP ?? 1);
const MINUTES = 60_000;
const fixtures = fileURLToPath(new URL('../fixtures/', import.meta.url));

/** Whole numbers below `n`, the same in every run. */
function dice(seed: number): (n: number) => number {
  let count = 0;
  return (n) => Math.floor((randomWord(seed, 0, count++) / 2 ** 32) * n);
}

type Mutation = (bytes: Buffer, roll: (n: number) => number) => Buffer;
const MUTATIONS: Mutation[] = [
  (b, roll) => b.subarray(0, roll(b.length)),
  (b, roll) => b.subarray(roll(Math.min(b.length, 64))),
  (b, roll) => flipped(b, roll, 1),
  (b, roll) => flipped(b, roll, 8),
  (b, roll) => flipped(b, (n) => roll(Math.min(n, 48)), 4), // headers
  (b, roll) =>
    Buffer.concat([b.subarray(0, roll(b.length)), Buffer.alloc(roll(64)), b.subarray(roll(b.length))]),
  (b, roll) => Buffer.concat([b, Buffer.from(Array.from({ length: roll(200) }, () => roll(256)))]),
  (b, roll) => {
    const from = roll(b.length);
    return Buffer.concat([
      b.subarray(0, from),
      Buffer.alloc(Math.min(64, b.length - from), 255),
      b.subarray(from + 64),
    ]);
  },
  (b, roll) =>
    Buffer.concat([b.subarray(0, 16), Buffer.from([roll(256), roll(256), 255, 255]), b.subarray(20)]), // sizes
  (b, roll) => Buffer.concat([b.subarray(0, 24), Buffer.from(Array.from({ length: 40 }, () => roll(256)))]),
];

function flipped(bytes: Buffer, roll: (n: number) => number, times: number): Buffer {
  const out = Buffer.from(bytes);
  for (let i = 0; i < times && out.length > 0; i++) out[roll(out.length)] ^= 1 << roll(8);
  return out;
}

/** Whether the work succeeded; anything but success and a DataError fails the test. */
async function readOrRefused(what: string, work: () => Promise<unknown>): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (error) {
    if (error instanceof DataError && error.message.length > 10) return false;
    throw new Error(
      `${what}: expected a DataError, found ${error instanceof Error ? error.stack : String(error)}`,
    );
  }
}

/** A PNG whose header promises a size and whose data is `raw`. */
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
  header[8] = 8; // bits a sample, grey
  const parts = [chunk('IHDR', header), chunk('IDAT', deflateSync(raw)), chunk('IEND', Buffer.alloc(0))];
  return Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), ...parts]);
}

describe('images', () => {
  const folder = join(fixtures, 'images');
  const pictures = readdirSync(folder).map((name) => ({ name, bytes: readFileSync(join(folder, name)) }));

  it('damaged in every way: decoded or refused', { timeout: 10 * MINUTES }, async () => {
    let [read, refused] = [0, 0];
    for (let round = 0; round < 2 * SCALE; round++)
      for (const [p, { name, bytes }] of pictures.entries())
        for (const [m, mutate] of MUTATIONS.entries()) {
          const what = `${name}, mutation ${m}, round ${round}`;
          const hostile = mutate(bytes, dice(1e6 * round + 100 * p + m));
          const work = async () => {
            const { data, width, height } = await decodeImage(hostile);
            expect(data.length, what).toBe(3 * width * height);
          };
          if (await readOrRefused(what, work)) read++;
          else refused++;
        }
    expect(read + refused).toBeGreaterThanOrEqual(300);
    expect(read).toBeGreaterThan(20);
    expect(refused).toBeGreaterThan(100);
  });

  it('bombs are refused by their number of pixels, before they are unpacked', async () => {
    const bombs = {
      'a header that promises 4 billion pixels': png(65_535, 65_535, Buffer.alloc(100)),
      'a header beyond the format': png(2 ** 31 - 1, 2 ** 31 - 1, Buffer.alloc(10)),
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

  it('files that are something else: refused whatever their name', async () => {
    const dir = await temporaryFolder();
    const others = ['', '<svg xmlns="http://www.w3.org/2000/svg"/>', '%PDF-1.4', '#!/bin/sh\n', 'BM', '\0'.repeat(999), 'GIF8', '\x89PNG\r\n\x1a\n', '\xff\xd8\xff', 'RIFF\0\0\0\0WEBP', 'II*\0', '\0\0\0\x20ftypavif']; // prettier-ignore
    for (const [i, text] of others.entries()) {
      const file = join(dir, `${i}.png`);
      await writeFile(file, Buffer.from(text, 'latin1'));
      await expect(decodeImage(file), text).rejects.toThrow(DataError);
      expect((await imageFacts(file)).unreadable, text).toBeTruthy();
    }
    await expect(decodeImage(dir)).rejects.toThrow(/cannot be read/);
    await expect(decodeImage('a\0b')).rejects.toThrow(DataError);
  });

  const COLLECTIONS = ['/usr/share/doc/libsixel-examples/examples/images', '/usr/libexec/installed-tests/gdk-pixbuf'].filter(existsSync); // prettier-ignore
  it.skipIf(COLLECTIONS.length === 0)(
    'collections of Debian packages',
    { timeout: 10 * MINUTES },
    async () => {
      const files = COLLECTIONS.flatMap(
        (dir) =>
      readdirSync(dir, { recursive: true, withFileTypes: true }).filter((f) => f.isFile()).map((f) => join(f.parentPath, f.name)), // prettier-ignore
      );
      for (const file of files) await readOrRefused(file, () => decodeImage(file));
    },
  );
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

  it('damaged bytes: read or refused, images included', { timeout: 10 * MINUTES }, async () => {
    const dir = await temporaryFolder();
    let [read, refused] = [0, 0];
    for (const [f, name] of FILES.entries()) {
      const bytes = readFileSync(join(datasets, name));
      for (let i = 0; i < 10 * SCALE; i++) {
        const file = join(dir, `${f}-${i % 10}-${name.slice(name.lastIndexOf('/') + 1)}`);
        await writeFile(file, MUTATIONS[i % MUTATIONS.length](bytes, dice(1000 * f + i)));
        const work = async () => {
          const { examples } = await openDataset(file, { skip_bad: true });
          for (const { image } of examples) await readOrRefused(`${file}: ${image}`, () => readImage(image));
        };
        if (await readOrRefused(`${name}, mutation ${i}`, work)) read++;
        else refused++;
      }
    }
    expect(read).toBeGreaterThan(5);
    expect(refused).toBeGreaterThan(20);
  });

  it('fuzzed text: read or refused', { timeout: 10 * MINUTES }, async () => {
    const dir = await temporaryFolder();
    await mkdir(join(dir, 'd'));
    const PIECES = ['"', "'", ',', '\t', '\n', '\r\n', '{', '}', '[', ']', ':', '\\', '\\u0000', '\ufeff', '\0', 'é', '\u2028', 'null', '1e999', '-', 'image', 'caption', 'file_name', 'text', 'question', 'answer', 'answers', 'split', 'train', 'a.png', '../', '__proto__', '"image":', '"images":', '"annotations":', '"questions":', ' ', 'x'.repeat(300)]; // prettier-ignore
    for (let i = 0; i < 200 * SCALE; i++) {
      const roll = dice(7000 + i);
      const text = Array.from({ length: roll(40) }, () => PIECES[roll(PIECES.length)]).join('');
      const file = join(dir, 'd', `x.${['jsonl', 'csv', 'tsv', 'json'][i % 4]}`);
      await writeFile(file, text);
      await readOrRefused(JSON.stringify(text), () => openDataset(file, { skip_bad: i % 3 === 0 }));
    }
  });
});

/** Rows of one picture in the batches of an epoch: order, sharing of pixels and crops, resuming, processes. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import sharp from 'sharp';
import { beforeAll, describe, expect, it } from 'vitest';
import { modelFolder, TEXT_IDS, temporaryFolder } from '../spec/model-folder';
import type { Batch, BatchOptions } from './batches';
import { batches, epochOrder } from './batches';
import type { Dataset } from './dataset';
import { keptTogether, sharesPictures } from './pictures';
import type { Processor } from './processor';
import { loadProcessor } from './load-processor';

let processor: Processor;
let files: string[];

beforeAll(async () => {
  processor = await loadProcessor(await modelFolder(), TEXT_IDS);
  const dir = await temporaryFolder();
  files = Array.from({ length: 8 }, (_, i) => join(dir, `${i}.png`));
  for (const [i, file] of files.entries()) {
    const background = { r: 20 * i, g: 0, b: 0 };
    const picture = sharp({ create: { width: 12, height: 8, channels: 3, background } });
    await writeFile(file, await picture.png().toBuffer());
  }
});

/** Row i of picture pictures[i]. */
const dataOf = (pictures: number[]): Dataset => ({
  path: '/',
  examples: pictures.map((p, i) => ({
    image: files[p],
    caption: 'dog '.repeat(1 + (i % 5)),
    fields: {},
    source: `rows.jsonl:${i + 1}`,
  })),
});

const ONE = [0, 1, 2, 3, 4, 5, 6];
const TWO = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5];
const FIVE = [0, 1, 2, 3].flatMap((p) => Array<number>(5).fill(p));
/** One, two and five rows of a picture, and a picture that is in two places of the file. */
const MIXED = [0, 1, 1, 2, 2, 2, 2, 2, 3, 4, 0, 5, 5, 6];

async function collect(data: Dataset, o: Partial<BatchOptions> = {}): Promise<Batch[]> {
  const out: Batch[] = [];
  const options = { batch_size: 5, task: 'caption', seed: 3, group_captions: true, ...o } as const;
  for await (const batch of batches(data, processor, options)) out.push(batch);
  return out;
}

describe('batches of pictures with several captions', () => {
  it.each([{ rows: ONE }, { rows: TWO }, { rows: FIVE }, { rows: MIXED }])(
    'visit every row once, those of a picture one after the other: $rows',
    async ({ rows }) => {
      const data = dataOf(rows);
      for (const epoch of [0, 1]) {
        const order = (await collect(data, { epoch, withPixels: false })).flatMap((b) => b.indices);
        expect(order.toSorted((a, b) => a - b)).toEqual([...rows.keys()]);
        const changes = order.filter((i, at) => at === 0 || rows[i] !== rows[order[at - 1]]);
        expect(changes).toHaveLength(new Set(rows).size);
      }
    },
  );

  it('put all captions of a picture into one batch if its size is a multiple of their number', async () => {
    const all = await collect(dataOf(FIVE), { batch_size: 10, withPixels: false });
    expect(all.map(({ images }) => images.length)).toEqual([2, 2]);
  });

  it('have the order of rows by themselves if no picture has several', async () => {
    const data = dataOf(ONE);
    expect(sharesPictures(data.examples)).toBe(false);
    expect(await collect(data)).toEqual(await collect(data, { group_captions: false }));
    const order = (await collect(data)).flatMap((b) => b.indices);
    expect(order).toEqual(Array.from(epochOrder(ONE.length, { seed: 3 })));
  });

  it('order pictures without regard to how many captions each has, and differently in each epoch', () => {
    const order = Int32Array.from(MIXED.keys());
    const firsts = Array.from({ length: 700 }, (_, epoch) =>
      keptTogether(order, Int32Array.from(MIXED), { seed: 1, epoch }),
    ).map(([first]) => MIXED[first]);
    for (let picture = 0; picture < 7; picture++) {
      const share = firsts.filter((p) => p === picture).length / 700;
      expect(Math.abs(share - 1 / 7)).toBeLessThan(0.05);
    }
  });

  it('hold the pixels of each picture once, whether or not rows are kept together', async () => {
    for (const group_captions of [true, false])
      for (const { pictures, images, examples, pixel_values } of await collect(dataOf(MIXED), {
        group_captions,
      })) {
        expect(new Set(images).size).toBe(images.length);
        expect(pixel_values).toHaveLength(images.length * 3 * 4 * 6);
        expect(examples.map(({ image }) => image)).toEqual(Array.from(pictures, (p) => images[p]));
        for (const [p, image] of images.entries())
          expect(pixel_values!.subarray(p * 72, p * 72 + 72)).toEqual(await processor.pixels(image));
      }
  });

  it('resume an interrupted epoch exactly', async () => {
    for (const rows of [TWO, FIVE, MIXED]) {
      const all = await collect(dataOf(rows), { epoch: 2 });
      for (let first = 1; first < all.length; first++)
        expect(await collect(dataOf(rows), { epoch: 2, start_batch: first })).toEqual(all.slice(first));
    }
  });

  it('give each process neighbouring rows; together they have each row once', async () => {
    const [one, two] = await Promise.all(
      [0, 1].map((index) => collect(dataOf(FIVE), { shard: { index, count: 2 }, withPixels: false })),
    );
    expect(one.map((batch, i) => [...batch.indices, ...two[i].indices])).toEqual(
      (await collect(dataOf(FIVE), { batch_size: 10, withPixels: false })).map((b) => b.indices),
    );
    expect([...one, ...two].map(({ images }) => images.length)).toEqual([1, 1, 1, 1]);
  });

  it('show one crop of a picture to all its captions, but mirror none that mentions a side', async () => {
    const data = dataOf(TWO);
    const crops = await collect(data, { augment: 'crop', batch_size: 12 });
    expect(crops[0].images).toHaveLength(6);
    const separate = await collect(data, { augment: 'crop', batch_size: 12, group_captions: false });
    expect(separate[0].images).toHaveLength(12);
    const sides = {
      ...data,
      examples: data.examples.map((e, i) => (i % 2 ? { ...e, caption: 'on the left' } : e)),
    };
    const mirrored = await collect(sides, { augment: 'crop+flip', batch_size: 12 });
    expect(mirrored[0].images.length).toBeGreaterThan(6);
    expect(mirrored[0].images.length).toBeLessThan(12);
  });
});

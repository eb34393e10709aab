import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import sharp from 'sharp';
import { beforeAll, describe, expect, it } from 'vitest';
import { modelFolder, TEXT_IDS, temporaryFolder } from '../spec/model-folder';
import type { Batch, BatchOptions } from './batches';
import { batches, countBatches, epochOrder } from './batches';
import type { Dataset } from './dataset';
import { DataError } from './errors';
import type { Processor } from './processor';
import { loadProcessor } from './load-processor';

const N = 11;
let processor: Processor;
let dataset: Dataset;

beforeAll(async () => {
  processor = await loadProcessor(await modelFolder(), TEXT_IDS);
  const dir = await temporaryFolder();
  const examples = Array.from({ length: N }, (_, i) => ({
    image: join(dir, `${i}.png`),
    caption: 'dog '.repeat(i + 1),
    fields: {},
    source: `rows.jsonl:${i + 1}`,
  }));
  for (const [i, { image }] of examples.entries()) {
    const background = { r: 20 * i, g: 0, b: 0 };
    await writeFile(
      image,
      await sharp({ create: { width: 6, height: 4, channels: 3, background } })
        .png()
        .toBuffer(),
    );
  }
  dataset = { path: dir, examples };
});

const options = (o: Partial<BatchOptions> = {}): BatchOptions => ({
  batch_size: 3,
  task: 'caption',
  seed: 5,
  ...o,
});

async function collect(o: Partial<BatchOptions> = {}, from = dataset, by = processor): Promise<Batch[]> {
  const out: Batch[] = [];
  for await (const batch of batches(from, by, options(o))) out.push(batch);
  return out;
}

describe('batches', () => {
  it('contain every example once, with its own pixels and text', async () => {
    const all = await collect();
    expect(all.map((b) => b.indices.length)).toEqual([3, 3, 3, 2]);
    expect(all.flatMap((b) => b.indices).sort((a, b) => a - b)).toEqual([...Array(N).keys()]);
    for (const batch of all) {
      const [B, T] = batch.shape;
      expect(batch.imageShape).toEqual([3, 4, 6]);
      expect(batch.pixel_values).toHaveLength(B * 3 * 4 * 6);
      for (const [b, index] of batch.indices.entries()) {
        expect(batch.examples[b]).toBe(dataset.examples[index]);
        expect(batch.pixel_values!.subarray(b * 72, b * 72 + 72)).toEqual(
          await processor.pixels(dataset.examples[index].image),
        );
        const learned = batch.labels.subarray(b * T, (b + 1) * T).filter((l) => l >= 0);
        expect(learned).toHaveLength(index + 1 + 1); // index + 1 dogs and the end
      }
      // padded to the longest text of this batch: 3 images, bos, dogs, end
      expect(T).toBe(3 + 1 + Math.max(...batch.indices) + 1 + 1);
    }
  });

  it('do not depend on prefetch and concurrency', async () => {
    const plain = await collect({ prefetch: 0, concurrency: 1 });
    expect(await collect({ prefetch: 7, concurrency: 5 })).toEqual(plain);
    expect(await collect({ prefetch: 2 })).toEqual(plain);
  });

  it('resume an interrupted epoch exactly', async () => {
    const all = await collect({ epoch: 4 });
    expect(await collect({ epoch: 4, start_batch: 2 })).toEqual(all.slice(2));
    expect(await collect({ start_batch: 9 })).toEqual([]);
  });

  it('have another order in another epoch or with another seed, and file order without shuffle', async () => {
    const order = async (o: Partial<BatchOptions>) =>
      (await collect({ withPixels: false, ...o })).flatMap((b) => b.indices);
    const orders = await Promise.all([order({}), order({ epoch: 1 }), order({ seed: 6 })]);
    expect(new Set(orders.map(String)).size).toBe(3);
    expect(orders[0]).toEqual(Array.from(epochOrder(N, { seed: 5 })));
    expect(await order({ shuffle: false })).toEqual([...Array(N).keys()]);
  });

  it('read no images with withPixels false', async () => {
    const gone = { ...dataset, examples: dataset.examples.map((e) => ({ ...e, image: '/gone.png' })) };
    const all = await collect({ withPixels: false, drop_last: true }, gone);
    expect(all).toHaveLength(countBatches(N, { batch_size: 3, drop_last: true }));
    expect(all.every((b) => b.pixel_values === undefined)).toBe(true);
  });

  it('decode at most `concurrency` images at a time, and `prefetch` batches ahead', async () => {
    let [now, most, started] = [0, 0, 0];
    const slow: Processor = {
      ...processor,
      async pixels() {
        most = Math.max(most, ++now);
        started++;
        await new Promise((done) => setTimeout(done, 2));
        now--;
        return new Float32Array(72);
      },
    };
    const run = batches(dataset, slow, options({ prefetch: 1, concurrency: 4 }));
    await run.next();
    await new Promise((done) => setTimeout(done, 30));
    expect(started).toBe(6); // the current batch and the next one
    while (!(await run.next()).done);
    expect([most, started]).toEqual([4, N]);
  });

  it('list every bad image of a batch in one error, after the good batches', async () => {
    const broken = join(dataset.path, 'broken.png');
    await writeFile(broken, 'no image');
    const examples = dataset.examples.map((e, i) => (i === 4 || i === 5 ? { ...e, image: broken } : e));
    const run = batches({ ...dataset, examples }, processor, options({ shuffle: false, prefetch: 3 }));
    expect((await run.next()).value?.indices).toEqual([0, 1, 2]);
    const error = await run.next().catch((e: unknown) => e);
    expect(error).toBeInstanceOf(DataError);
    expect((error as DataError).message).toMatch(
      /rows\.jsonl:5 and 6: expected a JPEG.*, found .*broken\.png: content of another kind/,
    );
  });

  it('can be left early, even when a prefetched batch is bad', async () => {
    const examples = dataset.examples.map((e, i) => (i > 2 ? { ...e, image: '/gone.png' } : e));
    for await (const batch of batches({ ...dataset, examples }, processor, options({ shuffle: false }))) {
      expect(batch.indices).toEqual([0, 1, 2]);
      break;
    }
    await new Promise((done) => setTimeout(done, 20)); // an unhandled rejection would fail the run
  });

  it('list all examples that do not fit the task before the first batch', async () => {
    const error = await collect({ task: 'vqa' }).catch((e: unknown) => e);
    expect((error as DataError).problems).toHaveLength(N);
    expect((error as DataError).message).toMatch(/11 of 11 examples do not fit the task "vqa"/);
  });

  it.each([{ batch_size: 0 }, { prefetch: -1 }, { start_batch: 1.5 }, { concurrency: 0 }, { seed: -1 }])(
    'refuses %j',
    async (o) => {
      await expect(collect(o)).rejects.toThrow(RangeError);
    },
  );
});

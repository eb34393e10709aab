/**
 * Many rows take the memory of their texts and no more: a run over all of them stays as large as it was at its first steps.
 * `BLIP2_ROWS=100000 npx vitest run --project trainer scale` prints the figures.
 */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { openDataset } from '@blip2/data-captions';
import { availableBackends } from '@blip2/nn/node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fit } from '../src/fit';
import { encodePng } from '../src/evaluation/png';
import { tinyConfig } from './tiny';

const ROWS = Number(process.env.BLIP2_ROWS ?? 1500);
const IMAGES = 100;
const BATCH = 50;
const MIB = 2 ** 20;
const say = (text: string) => process.env.BLIP2_ROWS && console.error(text);

setFlagsFromString('--expose-gc');
/** Collects garbage, so that only what is held counts. */
const collect = runInNewContext('gc') as () => void;
const held = () => {
  for (let i = 0; i < 3; i++) collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
};

let root: string;
/** JSON Lines of so many rows on a few images. */
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'blip2-scale-'));
  await mkdir(join(root, 'train'));
  for (let i = 0; i < IMAGES; i++) {
    const pixels = Uint8Array.from({ length: 32 * 32 * 3 }, (_, at) => (at * (i + 1)) % 251);
    await writeFile(join(root, 'train', `${i}.png`), encodePng(pixels, 32, 32));
  }
  const row = (i: number) =>
    JSON.stringify({
      file_name: `${i % IMAGES}.png`,
      text: `a ${i % 7 ? 'dog' : 'cat'} on the mat of house ${i}`,
    });
  await writeFile(
    join(root, 'train', 'metadata.jsonl'),
    Array.from({ length: ROWS }, (_, i) => row(i)).join('\n'),
  );
});
afterAll(() => rm(root, { recursive: true }));

const native = (await availableBackends()).includes('native');

describe(`${ROWS} rows`, () => {
  it('take few bytes each', async () => {
    const first = await openDataset(root); // what the first opening loads, once, is not the index
    const before = held();
    const { examples } = await openDataset(root);
    const each = (held() - before) / examples.length;
    say(`the index of ${examples.length} rows: ${each.toFixed(0)} bytes a row`);
    expect(examples).toHaveLength(ROWS);
    expect(first.examples).toHaveLength(ROWS);
    expect(each).toBeLessThan(1000);
  });

  it.each([false, true])(
    'train with flat memory (features cached: %s)',
    { timeout: 120_000 + ROWS * 20 },
    async (cache_features) => {
      const steps = Math.floor(ROWS / BATCH);
      const config = tinyConfig(root, {
        output_dir: join(root, `run-${cache_features}`),
        backend: native ? 'native' : 'cpu',
        cache_features,
        per_device_train_batch_size: BATCH,
        max_steps: steps,
        logging_steps: 10,
        final_evaluation: 'none',
      });
      const seen: { step: number; held: number; rss: number }[] = [];
      await fit(config, {
        onMessage: (text) => /waiting|cache/.test(text) && say(text),
        onProgress: ({ step }) => {
          if (step % Math.ceil(steps / 10) === 0)
            seen.push({ step, held: held(), rss: process.memoryUsage().rss });
        },
      });
      for (const { step, held, rss } of seen)
        say(
          `${step * BATCH} rows: ${(held / MIB).toFixed(1)} MiB held, process ${(rss / MIB).toFixed(0)} MiB`,
        );
      const [first, last] = [seen[1], seen.at(-1)!];
      expect(last.held - first.held).toBeLessThan(16 * MIB);
      // What is leaked grows in both halves; what an allocator keeps for later does not.
      const middle = seen[Math.ceil(seen.length / 2)];
      expect(Math.min(middle.rss - first.rss, last.rss - middle.rss)).toBeLessThan(100 * MIB);
    },
  );
});

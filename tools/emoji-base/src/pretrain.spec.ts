// Pretraining on a few images: batches are reproducible, losses decrease, a resumed run continues exactly.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { emojiIndex, renderPixels } from '@blip2/emoji-captions';
import { memory, rngKey } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { IMAGE_BYTES } from './base-data';
import type { BaseData } from './base-data';
import { makeBatches } from './batches';
import type { BaseBatch } from './batches';
import { score } from './evaluate';
import { createLearner, loadState, saveState, update } from './learner';
import { IMAGE_SIZE } from './model-files';
import { learningRate, spent } from './schedule';
import { tokenise } from './texts';
import type { Texts } from './texts';

const sizes = { images: 6, lines: 2, maxPositions: 96 };
/** A fake tokenizer: one id per word, in the range of the vocabulary. */
const encode = (text: string) =>
  text
    .split(' ')
    .map((word) => 5 + ([...word].reduce((hash, c) => (31 * hash + c.charCodeAt(0)) >>> 0, 7) % 2000));

let data: BaseData;
let texts: Texts;
let batches: (step: number) => BaseBatch;
let folder: string;

beforeAll(async () => {
  await useBackend('auto');
  folder = await mkdtemp(join(tmpdir(), 'emoji-base-'));
  const rows = emojiIndex().filter((row) => ['ant', 'tent', 'hedgehog', 'man judge'].includes(row.label));
  const images = await Promise.all(rows.map((row) => renderPixels(row, IMAGE_SIZE)));
  const pixels = new Uint8Array(images.length * IMAGE_BYTES);
  images.forEach((image, i) => pixels.set(image, i * IMAGE_BYTES));
  data = { items: rows.map((row) => ({ ...row, use: 'base' as const })), pixels, left: {} };
  texts = tokenise(data, encode);
  batches = makeBatches(data, texts, sizes, rngKey(3));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('makeBatches', () => {
  it('returns batches that depend on the step alone', () => {
    const [fifth, again] = [batches(5), makeBatches(data, texts, sizes, rngKey(3))(5)];
    expect(again).toEqual(fifth);
    expect(batches(6).pixels).not.toEqual(fifth.pixels);
  });

  it('contains every image once per epoch', () => {
    const half = makeBatches(data, texts, { ...sizes, images: 8 }, rngKey(1));
    const seen = [0, 1].flatMap((step) => {
      const { ofImage, bags, shape } = half(step).concepts;
      return [...ofImage].map((u) =>
        bags
          .subarray(u * shape[1], (u + 1) * shape[1])
          .filter((id) => id !== 1)
          .join(),
      );
    });
    const counts = [...new Set(seen)].map((bag) => seen.filter((other) => other === bag).length);
    expect(counts).toEqual([4, 4, 4, 4]); // four concepts in four styles
  });

  it('labels caption and end token only, after 32 image tokens and </s>', () => {
    const { input_ids, labels, attention_mask, shape } = batches(0).tokens;
    const [B, T] = shape;
    for (let b = 0; b < B; b++) {
      const [ids, wanted] = [input_ids, labels!].map((x) => [...x.subarray(b * T, (b + 1) * T)]);
      expect(ids.slice(0, 33)).toEqual([...Array<number>(32).fill(4), 2]);
      expect(wanted.slice(0, 33).every((label) => label === -100)).toBe(true);
      const length = attention_mask.subarray(b * T, (b + 1) * T).reduce((a, x) => a + x, 0);
      expect(wanted.slice(33, length)).toEqual(ids.slice(33, length));
      expect(ids[length - 1]).toBe(2);
      expect(wanted.slice(length).every((label) => label === -100)).toBe(true);
    }
  });

  it('has the words and the concept of each image', () => {
    const { words, concepts, tokens } = batches(1);
    expect(new Set(words.candidates).size).toBe(256);
    words.rows.forEach((b, i) => {
      const [, T] = tokens.shape;
      expect(tokens.input_ids.subarray(b * T, (b + 1) * T)).toContain(words.candidates[words.labels[i]]);
    });
    concepts.firstImage.forEach((b, u) => expect(concepts.ofImage[b]).toBe(u));
    concepts.ofImage.forEach((u, b) => {
      const masked = concepts.others[u * sizes.images + b] !== 0;
      expect(masked).toBe(concepts.firstImage[u] !== b);
    });
  });

  it('starts lines after the image and ends them within the positions', () => {
    for (let step = 0; step < 20; step++) {
      const { offsets, shape } = batches(step).lines;
      for (const offset of offsets) {
        expect(offset).toBeGreaterThanOrEqual(32);
        expect(offset + shape[1]).toBeLessThanOrEqual(96);
      }
    }
  });
});

describe('update', () => {
  it('lowers every loss, and continues exactly after saving and loading', async () => {
    const learner = createLearner(0);
    const first = await update(learner, batches(0), 1e-3);
    const { numTensors } = memory();
    for (let step = 1; step < 5; step++) await update(learner, batches(step), 1e-3);
    expect(memory().numTensors).toBe(numTensors);
    await saveState(learner, { step: 5, images: 30, seconds: 1 }, folder);
    const sixth = await update(learner, batches(0), 1e-3);
    for (const name of ['caption', 'word', 'line'] as const) expect(sixth[name]).toBeLessThan(first[name]);

    const other = createLearner(1);
    expect(await loadState(other, folder)).toEqual({ step: 5, images: 30, seconds: 1 });
    expect(await update(other, batches(0), 1e-3)).toEqual(sixth);
    await expect(loadState(other, join(folder, 'nowhere'))).rejects.toThrow();
  }, 300_000);
});

describe('schedule and score', () => {
  it('warms up over 200 updates and falls to 2 %', () => {
    const at = (step: number, images: number) =>
      learningRate(1, { images: 1000 }, { step, images, seconds: 0 });
    expect(at(0, 0)).toBeCloseTo(1 / 200, 6);
    expect(at(500, 500)).toBeCloseTo(0.51, 6);
    expect(at(900, 1000)).toBeCloseTo(0.02, 6);
    expect(spent({ minutes: 2 }, { step: 1, images: 1, seconds: 119 })).toBe(false);
    expect(spent({ minutes: 2 }, { step: 1, images: 1, seconds: 120 })).toBe(true);
  });

  it('counts exact labels without their article, and the parts of people', () => {
    const labels = ['man cook', 'woman cook: dark skin tone', 'ant'];
    expect(score(labels, ['a man cook', 'man cook: dark skin tone', 'bee'])).toMatchObject({
      count: 3,
      exact: 1 / 3,
      subject: 1 / 2,
      activity: 1,
      tone: 1,
    });
    expect(score(['ant'], ['an ant'])).toMatchObject({ exact: 1, subject: undefined });
  });
});

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { modelFolder, TEXT_IDS } from '../spec/model-folder';
import type { Box } from './augment';
import { crop, cropBox, flip, mentionsSides, viewOf } from './augment';
import type { BatchOptions } from './batches';
import { batches } from './batches';
import { decodeImage } from './decode-image';
import { loadProcessor } from './load-processor';
import { resizeBicubic } from './resize';

const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));

/** Made by fixtures/make_crops.py. */
const golden = JSON.parse(readFileSync(fixture('crops.json'), 'utf8')) as {
  boxes: { size: [number, number]; draws: number[]; box: number[] }[];
  views: { name: string; draws: number[]; flip: boolean; width: number; height: number; sha256: string }[];
};
const drawn = (draws: number[]) => (i: number) => draws[i] / 65536;
const example = (caption: string, i = 0) => ({
  image: fixture('images/rgb-300x200.png'),
  caption,
  fields: {},
  source: `rows.jsonl:${i + 1}`,
});

describe('crops', () => {
  it.each(golden.boxes)(
    'equal those of torchvision for the same random numbers: $size, $box',
    ({ size, draws, box }) => {
      const found = cropBox(...size, drawn(draws));
      expect([found.left, found.top, found.width, found.height]).toEqual(box);
    },
  );

  it.each(golden.views)(
    '$name, cropped, resized and mirrored, has the pixels of torchvision on PIL',
    async (v) => {
      const image = await decodeImage(fixture(`images/${v.name}`));
      const part = crop(image, cropBox(image.width, image.height, drawn(v.draws)));
      const resized = resizeBicubic(part, v.width, v.height);
      const { data } = v.flip ? flip(resized) : resized;
      expect(createHash('sha256').update(data).digest('hex')).toBe(v.sha256);
    },
  );

  it('keep 50 to 100 % of the area at ratios of 3:4 to 4:3, in random positions', () => {
    const [width, height] = [400, 300];
    const boxes: Box[] = Array.from({ length: 5000 }, (_, index) =>
      viewOf('crop', example('a'), { seed: 3, epoch: 1, index }).box(width, height),
    );
    const shares = boxes.map((box) => (box.width * box.height) / (width * height));
    const ratios = boxes.map((box) => box.width / box.height);
    expect(Math.min(...shares)).toBeGreaterThan(0.495);
    expect(Math.max(...shares)).toBeLessThanOrEqual(1);
    expect(Math.min(...ratios)).toBeGreaterThan(0.745);
    expect(Math.max(...ratios)).toBeLessThan(1.342);
    for (const { left, top, width: w, height: h } of boxes)
      expect(left >= 0 && top >= 0 && left + w <= width && top + h <= height).toBe(true);
    const lefts = boxes.filter((box) => box.width < width).map((box) => box.left / (width - box.width));
    expect(lefts.reduce((a, b) => a + b) / lefts.length).toBeCloseTo(0.5, 1);
    expect(new Set(boxes.map((box) => JSON.stringify(box))).size).toBeGreaterThan(4000);
  });
});

describe('flips', () => {
  const flips = (caption: string, kind: 'crop' | 'crop+flip') =>
    Array.from(
      { length: 1000 },
      (_, index) => viewOf(kind, example(caption), { seed: 0, epoch: 0, index }).flip,
    );

  it('mirror half of the images, but none whose text mentions left or right', () => {
    const share = flips('a cat', 'crop+flip').filter(Boolean).length / 1000;
    expect(share).toBeGreaterThan(0.45);
    expect(share).toBeLessThan(0.55);
    expect(flips('a cat', 'crop')).not.toContain(true);
    expect(flips('a cat on the left', 'crop+flip')).not.toContain(true);
  });

  it('depend on such words in captions, questions and answers', () => {
    const of = (texts: object) => mentionsSides({ ...example('a'), ...texts });
    expect(of({ caption: 'Leftmost of three' })).toBe(true);
    expect(of({ captions: ['a dog', 'a dog to the right'] })).toBe(true);
    expect(of({ caption: undefined, question: 'What is on the right-hand side?', answer: 'tea' })).toBe(true);
    expect(of({ question: 'Which way?', answer: 'anticlockwise', answers: ['anticlockwise'] })).toBe(true);
    expect(of({ caption: 'a bright copyright cleft' })).toBe(false);
  });
});

describe('augmented batches', () => {
  const options = (o: Partial<BatchOptions> = {}): BatchOptions => ({
    batch_size: 2,
    task: 'caption',
    seed: 5,
    augment: 'crop+flip',
    ...o,
  });

  it('depend on seed and epoch only, not on concurrency or the first batch', async () => {
    const processor = await loadProcessor(await modelFolder(), TEXT_IDS);
    const examples = Array.from({ length: 7 }, (_, i) => example('a cat', i));
    const pixels = async (o: Partial<BatchOptions> = {}) => {
      const out: string[] = [];
      for await (const batch of batches({ path: '/', examples }, processor, options(o)))
        out.push(Buffer.from(batch.pixel_values!.buffer).toString('base64'));
      return out;
    };
    const all = await pixels();
    expect(await pixels({ concurrency: 1, prefetch: 0 })).toEqual(all);
    expect(await pixels({ concurrency: 4, prefetch: 5 })).toEqual(all);
    expect(await pixels({ start_batch: 2 })).toEqual(all.slice(2));
    expect(new Set([...all, ...(await pixels({ epoch: 1 })), ...(await pixels({ seed: 6 }))]).size).toBe(12);
    expect(new Set(await pixels({ augment: undefined })).size).toBe(1); // one image, once in each batch
  });
});

import { imageFeatures, queryEmbeds, textIds } from '@blip2/blip2';
import { loadConfig, loadFolder } from '@blip2/blip2/node';
import type { Blip2, ImageInput } from '@blip2/blip2';
import { loadProcessor, openDataset } from '@blip2/data-captions';
import type { Example, Processor } from '@blip2/data-captions';
import { memory, tidy } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { beforeAll, describe, expect, it } from 'vitest';
import { TINY_MODEL, tinyJob } from '../../spec/tiny';
import { generateCaptions, promptOf, readImages, referenceOf } from './captions';
import type { CaptionOptions } from './captions';
import { derangement, pictureControls } from './controls';
import { judge } from './judge';

let model: Blip2;
let processor: Processor;
let train: Example[];
let test: Example[];
const options: CaptionOptions = { task: 'caption', batch_size: 3, max_new_tokens: 8, num_beams: 1 };

beforeAll(async () => {
  await useBackend('cpu');
  const root = await tinyJob();
  model = await loadFolder(TINY_MODEL);
  processor = await loadProcessor(TINY_MODEL, textIds(await loadConfig(TINY_MODEL)));
  train = (await openDataset(root, { split: 'train' })).examples;
  test = (await openDataset(root, { split: 'test' })).examples;
});

/** Projected queries of the test images, as a feature cache gives them. */
async function cached(indices: number[]): Promise<ImageInput> {
  const { pixel_values } = await readImages(
    processor,
    indices.map((i) => test[i]),
  );
  const query_embeds = tidy(() => queryEmbeds(model, imageFeatures(model, pixel_values)));
  pixel_values.dispose();
  return { query_embeds };
}

describe('generateCaptions', () => {
  it('says the same in any batch size, and from cached features, and leaves no tensor behind', async () => {
    const before = memory().numTensors;
    const one = await generateCaptions(model, processor, test, { ...options, batch_size: 1 });
    const three = await generateCaptions(model, processor, test, options);
    const features = await generateCaptions(model, processor, test, { ...options, embeds: cached });
    expect(memory().numTensors).toBe(before);
    expect(new Set(one).size).toBeGreaterThan(1);
    expect(three).toEqual(one);
    expect(features).toEqual(one);
  });

  it('reports progress', async () => {
    const seen: number[] = [];
    await generateCaptions(model, processor, test, {
      ...options,
      onProgress: (done) => void seen.push(done),
    });
    expect(seen).toEqual([3, 4]);
  });
});

describe('promptOf and referenceOf', () => {
  const example: Example = {
    image: 'a.png',
    caption: ' a  red\nthing ',
    question: 'what?',
    answer: 'red',
    fields: {},
    source: 'x:1',
  };
  it('follow the task', () => {
    expect(promptOf(example, { task: 'vqa' })).toBe('Question: what? Answer:');
    expect(promptOf(example, { task: 'vqa', prompt: '{}?' })).toBe('what??');
    expect(promptOf(example, { task: 'caption', prompt: 'see' })).toBe('see');
    expect(referenceOf(example, 'caption')).toBe('a red thing');
    expect(referenceOf(example, 'vqa')).toBe('red');
  });
});

describe('judge', () => {
  it('gives each control its row, from files and from cached features alike', async () => {
    const common = { ...options, name: 'model', model, processor, train, test, seed: 3 };
    const said = test.map(({ caption }) => caption!);
    const before = memory().numTensors;
    const { table, figures } = await judge(said, { ...common, before: said });
    const { rows } = table;
    expect(rows.map(({ name, kind }) => [name, kind])).toEqual([
      ['model', 'model'],
      ['base, before training', 'base'],
      ['blank image', 'control'],
      ['shuffled images', 'control'],
      ['majority caption', 'control'],
      ['chance', 'control'],
      ['nearest neighbour', 'control'],
    ]);
    expect(rows.map(({ exact }) => exact)).toEqual([1, 1, 0, 0, 0.25, 0.25, 1]);
    expect(figures.degeneration.changed_when_shuffled).toBe(1);
    expect((await judge(said, { ...common, before: said, embeds: cached })).table.rows).toEqual(rows);
    const alone = await judge(said, { ...common, train: undefined });
    expect(alone.table.rows.map(({ name }) => name)).toEqual(['model', 'blank image', 'shuffled images']);
    expect(memory().numTensors).toBe(before);
  });

  it('shows shuffled pictures to the model, and one white picture', async () => {
    const said = await generateCaptions(model, processor, test, options);
    // references are what the model says of each picture: right on its own picture, wrong on another one
    const labelled = test.map((example, i) => ({ ...example, caption: said[i] }));
    expect(new Set(said).size).toBe(test.length);
    const { table } = await judge(said, {
      ...options,
      name: 'model',
      model,
      processor,
      test: labelled,
      seed: 3,
    });
    const exact = Object.fromEntries(table.rows.map((row) => [row.name, row.exact]));
    expect(exact['shuffled images']).toBe(0);
    expect([0, 0.25]).toContain(exact['blank image']); // one text for all pictures: right for one of them at most
  });

  it('never gives a question the picture of another row that is the same picture', async () => {
    const asked = [test[0], test[0], test[1], test[1], test[0]];
    const { shuffled } = await pictureControls({ ...options, model, processor, test: asked, seed: 3 });
    const [zero, one] = await generateCaptions(model, processor, [test[0], test[1]], options);
    expect(shuffled).toEqual([one, one, zero, zero, one]);
    expect(
      await pictureControls({ ...options, model, processor, test: [test[0]], seed: 3 }),
    ).not.toHaveProperty('shuffled');
  });
});

describe('derangement', () => {
  it.each([2, 3, 50])('of %s moves everything and loses nothing', (n) => {
    const order = derangement(n, 7);
    expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: n }, (_, i) => i));
    order.forEach((other, i) => expect(other).not.toBe(i));
    expect(derangement(n, 7)).toEqual(order);
  });
});

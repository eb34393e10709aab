/** What is kept of pictures, so that the vision tower reads each once. */
import { memory, tensor } from '@blip2/nn';
import type { Tensor3D } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { beforeAll, describe, expect, it } from 'vitest';
import { ADAPTER, INSTRUCT, PICTURES, TINY } from '../spec/testing';
import { createEngine } from './engine';
import type { FromWorker, Task } from './messages';
import { openModel } from './open-model';
import { KeptTensors, pictureReader, pictureStages } from './pictures';
import type { PictureStage } from './pictures';

const options = { backend: 'cpu', precision: 'float32' } as const;

describe('kept tensors', () => {
  beforeAll(() => useBackend('cpu'));

  it('have at most so many bytes; those that were not used for longest leave first', () => {
    const before = memory().numTensors;
    const kept = new KeptTensors(3 * 40);
    for (const key of ['a', 'b', 'c']) kept.add(key, tensor<Tensor3D>(new Float32Array(10), [1, 1, 10]));
    expect(kept.get('a')).toBeDefined();
    kept.add('d', tensor<Tensor3D>(new Float32Array(10), [1, 1, 10]));
    expect(['a', 'b', 'c', 'd'].filter((key) => kept.get(key))).toEqual(['a', 'c', 'd']);
    expect(memory().numTensors).toBe(before + 3);
    kept.add('large', tensor<Tensor3D>(new Float32Array(31), [1, 1, 31]));
    expect(memory().numTensors).toBe(before);
  });
});

describe('pictures', () => {
  it('are run through the model once, whatever else is in the batch, and give what they gave', async () => {
    const { models, processor } = await openModel({ model: TINY, ...options });
    const pixels = await Promise.all(PICTURES.map((path) => processor.pixels(path)));
    const pictures = pixels.map((one, i) => ({ pixels: one, hash: String(i) }));
    const stage = pictureStages(models).get('base')!;
    const runs: number[] = [];
    const counted: PictureStage = { ...stage, run: (x) => (runs.push(x.shape[0]), stage.run(x)) };
    const read = pictureReader(counted, processor.imageSize, new KeptTensors(2 ** 20));
    const none = pictureReader(stage, processor.imageSize, new KeptTensors(0));
    const [a, b, c] = pictures;
    for (const [batch, count] of [
      [[a], 1],
      [[b, a, b], 1],
      [[a], 0],
      [[c, c, a], 1],
      [[c, b, a], 0],
    ] as const) {
      runs.length = 0;
      const [found, expected] = [read(batch), none(batch)];
      expect(found.shape).toEqual([batch.length, ...expected.shape.slice(1)]);
      expect([...(await found.data())]).toEqual([...(await expected.data())]);
      expect(runs).toEqual(count === 0 ? [] : [count]);
      for (const one of [found, expected]) one.dispose();
    }
  });

  it('are shared by adapters that leave the vision tower and the Q-Former as they are', async () => {
    const { models } = await openModel({ model: TINY, adapters: { trained: ADAPTER }, ...options });
    const own = pictureStages(models);
    expect([...own.values()].map(({ owner, name }) => [owner, name])).toEqual([
      ['trained', 'query_embeds'],
      ['trained', 'query_embeds'],
    ]);
    const base = models.get('base')!;
    const { query_tokens } = base.params;
    const other = { ...base, params: { ...base.params, query_tokens: query_tokens.clone() } };
    const changed = pictureStages(new Map([...models, ['other', other]]));
    expect(changed.get('other')!.owner).toBe('other');
    const { models: instructed } = await openModel({ model: INSTRUCT, ...options });
    expect(pictureStages(instructed).get('base')!.name).toBe('image_features');
  });

  it('that are asked about twice take no memory twice, and every answer is as the first', async () => {
    const opened = await openModel({ model: TINY, ...options });
    const texts: unknown[] = [];
    const engine = createEngine(opened, 2 ** 20, (message: FromWorker) => {
      if (message.type === 'text') texts.push(message.text);
    });
    const running = engine.run();
    const task: Task = { image: PICTURES[0], generation: { max_new_tokens: 4 } };
    const sizes: number[] = [];
    for (let id = 0; id < 5; id++) {
      engine.receive({ type: 'request', id, task });
      while (texts.length <= id) await new Promise((resolve) => setImmediate(resolve));
      sizes.push(memory().numTensors);
    }
    expect(new Set(texts.map((text) => JSON.stringify(text))).size).toBe(1);
    expect(sizes[4]).toBe(sizes[1]);
    engine.receive({ type: 'close' });
    await running;
  });
});

/** Requests in the worker whose computation fails, and the memory that requests leave. */
import { memory } from '@blip2/nn';
import { beforeAll, describe, expect, it } from 'vitest';
import { PICTURES, TINY } from '../spec/testing';
import { createEngine } from './engine';
import { Lane } from './lane';
import type { FromWorker, Task } from './messages';
import { openModel } from './open-model';
import type { OpenModel } from './open-model';
import { KeptTensors, pictureReaders } from './pictures';
import { prepare } from './prepare';
import type { Prepared } from './prepare';

let opened: OpenModel;
beforeAll(async () => void (opened = await openModel({ model: TINY, backend: 'cpu', precision: 'float32' })));

const taskOf = (more: Partial<Task> = {}): Task => ({
  image: PICTURES[0],
  generation: { max_new_tokens: 3, min_new_tokens: 3 },
  ...more,
});
const breathe = () => new Promise<void>((resolve) => void setImmediate(resolve));
const request = (id: number, generation = taskOf().generation) =>
  prepare(id, taskOf({ generation }), opened.models.get('base')!, opened.processor);

/** How each request ended: `text`, or the name of its error. */
async function endsOf(requests: readonly Prepared[]): Promise<Record<number, string>> {
  const ends: Record<number, string> = {};
  const readers = pictureReaders(opened.models, opened.processor.imageSize, new KeptTensors(0)).get('base')!;
  const lane = new Lane(opened.models.get('base')!, opened.processor, readers, (message: FromWorker) => {
    if (message.type === 'text') ends[message.id] = message.type;
    if (message.type === 'error') ends[message.id] = message.name;
  });
  for (const one of requests) lane.add(one);
  while (lane.isBusy) await lane.turn(breathe, new Set());
  return ends;
}

describe('a request that cannot be computed', () => {
  it('ends with a ComputeError, and those that join with it get their texts', async () => {
    const all = await Promise.all([0, 1, 2].map((id) => request(id)));
    const pixels = new Float32Array(4 * all[1].picture.pixels.length); // larger than the tensor of all three
    const large = { ...all[1], picture: { pixels, hash: 'large' } };
    expect(await endsOf([all[0], large, all[2]])).toEqual({
      0: 'text',
      1: 'ComputeError',
      2: 'text',
    });
  });

  it('ends with a ComputeError if its scores are not numbers, also in beam search', async () => {
    const beams = { max_new_tokens: 3, num_beams: 2 };
    const all = await Promise.all([request(0), request(1, beams)]);
    const broken = all.map((one) => ({
      ...one,
      picture: { ...one.picture, pixels: one.picture.pixels.map(() => NaN) },
    }));
    expect(await endsOf(broken)).toEqual({ 0: 'ComputeError', 1: 'ComputeError' });
  });

  it('ends those that enter with it if they cannot be grouped, and later ones get their texts', async () => {
    const all = await Promise.all([0, 1, 2, 3, 4].map((id) => request(id)));
    const ends = await endsOf([all[0], { ...all[1], tokens: undefined as never }, ...all.slice(2)]);
    expect(ends).toEqual({
      ...Object.fromEntries([0, 1, 2, 3].map((id) => [id, 'ComputeError'])),
      4: 'text',
    });
  });
});

describe('requests of every kind', () => {
  it('leave no tensor behind', async () => {
    const ends: string[] = [];
    const engine = createEngine(opened, 2 ** 20, (message) => {
      if (message.type === 'token') return;
      ends.push(message.type);
    });
    const running = engine.run();
    const generation = { max_new_tokens: 6, min_new_tokens: 6 };
    const tasks = [
      taskOf({ generation }),
      taskOf({ generation: { ...generation, num_beams: 3 } }),
      taskOf({ generation: { temperature: 0 } }), // refused
      taskOf({ answers: ['a', 'the dog'], generation: {} }),
      taskOf({ generation, attention_map: true }),
    ];
    let id = 0;
    async function round(): Promise<void> {
      const kinds = [...tasks, ...tasks];
      const until = ends.length + kinds.length;
      for (const [i, task] of kinds.entries()) {
        engine.receive({ type: 'request', id, task });
        if (i >= tasks.length) cancelLater(id, i);
        id++;
      }
      while (ends.length < until) await breathe();
      await breathe();
    }
    function cancelLater(own: number, turns: number): void {
      if (turns > 0) setImmediate(() => cancelLater(own, turns - 1));
      else engine.receive({ type: 'cancel', id: own });
    }
    await round();
    const before = memory().numTensors;
    for (let i = 0; i < 10; i++) await round();
    expect(memory().numTensors).toBe(before);
    expect(new Set(ends)).toEqual(new Set(['text', 'scores', 'error', 'cancelled']));
    engine.receive({ type: 'close' });
    await running;
  });
});

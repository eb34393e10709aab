import { memory } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { beforeAll, describe, expect, it } from 'vitest';
import type { ToyBatch } from '../../spec/toy';
import { ROWS, toyParts, valuesOf } from '../../spec/toy';
import { worldOf } from '../../spec/world';
import type { TrainParts } from './step';
import type { TrainHooks, TrainOptions, TrainState } from './train';
import { initialState, train } from './train';
import type { World } from './world';
import { alone, fromFirst, gather, sumNumbers } from './world';

beforeAll(async () => void (await useBackend('cpu')));

const OPTIONS: TrainOptions = {
  totalSteps: 9,
  gradient_accumulation_steps: 1,
  seed: 3,
  logging_steps: 2,
  eval_steps: 4,
  save_steps: 99,
};

/** The share of a rank in global batches of `rows` rows, dealt out row by row. */
function shareOf(world: World, rows: number, rate = 0): TrainParts<ToyBatch> {
  const starts = Array.from({ length: Math.ceil(6 / rows) }, (_, i) => i * rows);
  return {
    ...toyParts({ batch: rows, rate }),
    world,
    batchesPerEpoch: starts.length,
    async *batches(_epoch, first) {
      for (const at of starts.slice(first)) {
        const own = (values: number[][]) =>
          values.slice(at, at + rows).filter((_, row) => row % world.size === world.rank);
        yield { x: own(ROWS.x), y: own(ROWS.y) };
      }
    },
  };
}

/** Trains on every rank at the same time. */
function together(worlds: World[], rows: number, o: Partial<TrainOptions>, hooksOf = noHooks, states = none) {
  return Promise.all(
    worlds.map(async (world, rank) => {
      const parts = shareOf(world, rows);
      const result = await train(parts, { ...OPTIONS, ...o }, hooksOf(rank), states[rank]);
      return { parts, ...result, weights: await valuesOf(parts.trainables) };
    }),
  );
}

const noHooks: (rank: number) => TrainHooks<ToyBatch> = () => ({});
const none: TrainState[] = [];

function expectClose(found: Record<string, number[]>, expected: Record<string, number[]>) {
  for (const [name, values] of Object.entries(expected))
    values.forEach((value, i) => expect(found[name][i]).toBeCloseTo(value, 5));
}

describe('a world of two', () => {
  // 5 rows: 3 and 2, then 1 and none. 4 rows with accumulation: groups of unequal token counts.
  it.each([
    [6, 1],
    [5, 1],
    [4, 2],
    [1, 3],
  ])('trains as one process with the same global batch: %i rows, %i micro-batches', async (rows, micro) => {
    const o = { gradient_accumulation_steps: micro };
    const losses: number[][] = [[], [], []];
    const hooksOf = (rank: number) => ({
      onLog: ({ loss }: { loss: number }) => void losses[rank].push(loss),
    });
    const [one] = await together([alone], rows, o, () => hooksOf(2));
    const [first, second] = await together(worldOf(2), rows, o, hooksOf);
    expect(second.weights).toEqual(first.weights);
    expectClose(first.weights, one.weights);
    expect(losses[0]).toEqual(losses[1]);
    expect(losses[0].length).toBeGreaterThan(3);
    losses[0].forEach((loss, i) => expect(loss).toBeCloseTo(losses[2][i], 5));
    expect(first.state.window.images).toBe(one.state.window.images);
  });

  it('stops on all ranks when one is told to, saves at that step, and goes on to the same weights', async () => {
    const [whole] = await together(worldOf(2), 5, {});
    const worlds = worldOf(2);
    const parts = worlds.map((world) => shareOf(world, 5));
    const abort = new AbortController();
    const saved: string[] = [];
    const legs = (signal?: AbortSignal, states = none) =>
      Promise.all(
        worlds.map((_, rank) =>
          train(
            parts[rank],
            OPTIONS,
            {
              signal: rank === 1 ? signal : undefined,
              onProgress: ({ step }) => void (rank === 1 && signal && step === 4 && abort.abort()),
              save: async ({ step }) => void saved.push(`rank ${rank} at ${step}`),
            },
            states[rank],
          ),
        ),
      );
    const stopped = await legs(abort.signal);
    expect(stopped.map(({ interrupted, state }) => [interrupted, state.step])).toEqual([
      [true, 4],
      [true, 4],
    ]);
    expect(saved).toEqual(['rank 0 at 4', 'rank 1 at 4']);
    await legs(
      undefined,
      stopped.map(({ state }) => state),
    );
    expect(await valuesOf(parts[0].trainables)).toEqual(whole.weights);
    expect(await valuesOf(parts[1].trainables)).toEqual(whole.weights);
  });

  it('ends at the same update when time is up, although ranks take different times', async () => {
    const slow = (rank: number): TrainHooks<ToyBatch> => ({
      onProgress: () => {
        const begin = performance.now();
        while (rank === 1 && performance.now() - begin < 20);
      },
    });
    const ranks = await together(worldOf(2), 5, { totalSteps: 500, max_minutes: 0.2 / 60 }, slow);
    expect(ranks.map(({ ended }) => ended)).toEqual(['max_minutes', 'max_minutes']);
    expect(ranks[0].state).toEqual(ranks[1].state);
  });

  it('draws other dropout on each rank', async () => {
    const seen: string[] = [];
    await Promise.all(
      worldOf(2).map(async (world) => {
        const parts = shareOf(world, 6, 0.5);
        const { loss } = parts;
        parts.loss = (batch, key) => {
          seen.push(JSON.stringify(key));
          return loss(batch, key);
        };
        await train(parts, { ...OPTIONS, totalSteps: 3, gradient_accumulation_steps: 2 });
      }),
    );
    expect(new Set(seen).size).toBe(seen.length);
  });

  it('stops before an update that is not finite on one rank only, on both', async () => {
    const before = memory().numTensors;
    const errors = await Promise.all(
      worldOf(2).map(async (world, rank) => {
        const parts = shareOf(world, 6);
        const { batches } = parts;
        parts.batches = async function* (epoch, first) {
          for await (const batch of batches(epoch, first))
            yield rank === 1 && epoch === 2
              ? { ...batch, y: batch.y.map((row) => row.map(() => NaN)) }
              : batch;
        };
        const error = await train(parts, OPTIONS).catch((reason: Error) => reason.message);
        return error;
      }),
    );
    expect(errors[0]).toMatch(/^step 3: the loss is NaN/);
    expect(errors[1]).toBe(errors[0]);
    expect(memory().numTensors - before).toBe(2 * (2 + 4)); // weights and moments of both ranks; no gradient is left
  });

  const failing = () => {
    throw new Error('no such picture');
  };
  const alsoFailing = (parts: TrainParts<ToyBatch>, what: 'batches' | 'loss', from: number) => {
    const { batches, loss } = parts;
    if (what === 'batches')
      parts.batches = async function* (epoch, first) {
        if (epoch >= from) failing();
        yield* batches(epoch, first);
      };
    else parts.loss = (...given) => (parts.optimizer.step >= from ? failing() : loss(...given));
  };

  it.each([
    ['batches', [1], /^process 2 of 3 failed: Error: no such picture/],
    ['loss', [2], /^process 3 of 3 failed: Error: no such picture/],
    ['loss', [0, 1, 2], /^no such picture/],
    ['batches', [0], /^no such picture/],
  ] as const)(
    'throws on all ranks before the update when %s fail on rank %j',
    async (what, failed, message) => {
      const before = memory().numTensors;
      const states: TrainState[] = worldOf(3).map(() => initialState());
      const errors = await Promise.all(
        worldOf(3).map((world, rank) => {
          const parts = shareOf(world, 6);
          if ((failed as readonly number[]).includes(rank)) alsoFailing(parts, what, 2);
          return train(parts, OPTIONS, {}, states[rank]).catch((error: Error) => error);
        }),
      );
      const [first, ...others] = errors as Error[];
      expect(first.message).toMatch(message);
      for (const { message } of others)
        expect(message).toMatch(/^process \d of 3 failed: Error: no such picture/);
      expect(states.map(({ step }) => step)).toEqual([2, 2, 2]);
      expect(memory().numTensors - before).toBe(3 * (2 + 4)); // weights and moments; no gradient is left
    },
  );

  it('gathers a text of each rank, also an empty one, and hands on what rank 0 makes', async () => {
    const texts = ['', 'größer', 'x'.repeat(10_000)];
    const gathered = await Promise.all(worldOf(3).map((world, rank) => gather(world, texts[rank])));
    expect(gathered).toEqual([texts, texts, texts]);
    const made: number[] = [];
    const values = await Promise.all(
      worldOf(2).map((world, rank) => fromFirst(world, async () => ({ of: made.push(rank) }))),
    );
    expect([made, values]).toEqual([[0], [{ of: 1 }, { of: 1 }]]);
    expect(await gather(alone, 'own')).toEqual(['own']);
  });

  it('sums numbers, and leaves them as they are for one process alone', async () => {
    const sums = await Promise.all(worldOf(2).map((world, rank) => sumNumbers(world, [rank + 1, 0.5])));
    expect(sums).toEqual([
      [3, 1],
      [3, 1],
    ]);
    expect(await sumNumbers(alone, [0.1])).toEqual([0.1]);
  });
});

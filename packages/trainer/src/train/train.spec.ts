import { memory, scale, sum, tensor } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { beforeAll, describe, expect, it } from 'vitest';
import { toyParts, valuesOf } from '../../spec/toy';
import type { LogRow, TrainOptions, TrainState } from './train';
import { initialState, train } from './train';
import { NonFiniteError } from './step';

const OPTIONS: TrainOptions = {
  totalSteps: 12,
  gradient_accumulation_steps: 1,
  seed: 3,
  logging_steps: 4,
  eval_steps: 5,
  save_steps: 4,
};

beforeAll(async () => void (await useBackend('cpu')));

describe('train', () => {
  it('gives the same weights for accumulated micro-batches as for the whole batch', async () => {
    const whole = toyParts({ batch: 6 });
    const split = toyParts({ batch: 4 }); // 4 + 2 rows: unequal shares
    await train(whole, OPTIONS);
    await train(split, { ...OPTIONS, gradient_accumulation_steps: 2 });
    const [a, b] = [await valuesOf(whole.trainables), await valuesOf(split.trainables)];
    a.weight.forEach((x, i) => expect(b.weight[i]).toBeCloseTo(x, 5));
    expect(Math.abs(a.weight[0] - Math.sin(0))).toBeGreaterThan(0.1);
  });

  it('keeps the number of tensors constant over the steps', async () => {
    const parts = toyParts({ batch: 2, rate: 0.1 });
    const counts: number[] = [];
    const onProgress = () => void counts.push(memory().numTensors);
    await train(parts, { ...OPTIONS, gradient_accumulation_steps: 2 }, { onProgress });
    expect(counts).toHaveLength(12);
    expect(new Set(counts).size).toBe(1);
  });

  it('continues after any number of steps to bit-identical weights, logs and evaluations', async () => {
    const course = async (stops: number[]) => {
      const parts = toyParts({ batch: 2, rate: 0.3 });
      const rows: LogRow[] = [];
      const seen: number[] = [];
      let state: TrainState = initialState();
      for (const stop of [...stops, Infinity]) {
        const abort = new AbortController();
        const hooks = {
          signal: abort.signal,
          onProgress: ({ step }: { step: number }) => void (step === stop && abort.abort()),
          onLog: (row: LogRow) => void rows.push(row),
          evaluate: async ({ step }: TrainState) => {
            seen.push(step);
            return -step;
          },
        };
        const kept = structuredClone(state); // as a checkpoint keeps it
        ({ state } = await train(parts, { ...OPTIONS, gradient_accumulation_steps: 2 }, hooks, kept));
      }
      const logged = rows.map(({ step, epoch, loss, grad_norm }) => ({ step, epoch, loss, grad_norm }));
      return { values: await valuesOf(parts.trainables), logged, seen, step: state.step };
    };
    const whole = await course([]);
    expect(whole.seen).toEqual([5, 10, 12]);
    expect(whole.logged.map(({ step }) => step)).toEqual([4, 8, 12]);
    for (const stops of [[1], [5], [3, 4, 11]]) expect(await course(stops)).toEqual(whole);
  });

  it('saves when due, when an evaluation is the best so far, and when it is stopped', async () => {
    const abort = new AbortController();
    const saves: [number, number | undefined][] = [];
    const scores = [3, 5, 2];
    const { interrupted } = await train(
      toyParts({ batch: 6 }),
      { ...OPTIONS, totalSteps: 40, save_steps: 8 },
      {
        signal: abort.signal,
        evaluate: async () => scores.shift(),
        save: async ({ step, best }) => void saves.push([step, best?.step]),
        onProgress: ({ step }) => void (step === 17 && abort.abort()),
      },
    );
    expect(interrupted).toBe(true);
    expect(saves).toEqual([
      [5, 5],
      [8, 5],
      [15, 15],
      [16, 15],
      [17, 15],
    ]);
  });

  it('never takes a score that is no number for the best', async () => {
    const scores = [NaN, 5, 7];
    const { state } = await train(
      toyParts({ batch: 6 }),
      { ...OPTIONS, totalSteps: 15, save_steps: 99 },
      { evaluate: async () => scores.shift() },
    );
    expect(state.best).toEqual({ step: 10, score: 5 });
  });

  /** Trains with the given evaluation scores, and says where and why it ended and when it saved. */
  async function ended(scores: number[], o: Partial<TrainOptions>) {
    const saved: number[] = [];
    const { state, interrupted, ended } = await train(
      toyParts({ batch: 6 }),
      { ...OPTIONS, totalSteps: 60, save_steps: 99, ...o },
      { evaluate: async () => scores.shift(), save: async ({ step }) => void saved.push(step) },
    );
    expect(interrupted).toBe(false);
    return { step: state.step, best: state.best?.step, ended, saved: saved.at(-1) };
  }

  it('ends when evaluations get no better, as EarlyStoppingCallback does', async () => {
    const patience = { early_stopping_patience: 2, early_stopping_threshold: 0.5 };
    // 5: better; 4.8: better by less than the threshold; 4.6: again not by more than that
    expect(await ended([5, 4.8, 4.6, 1], patience)).toEqual({
      step: 15,
      best: 15,
      ended: 'early stopping',
      saved: 15,
    });
    expect(await ended([5, 6, 3, 7, NaN, 1], patience)).toMatchObject({ step: 25, best: 15, saved: 25 });
    expect(await ended([5, 4, 3], { ...patience, totalSteps: 15 })).toMatchObject({ ended: 'last step' });
  });

  it('ends when its time is up, with an evaluation and a checkpoint, and goes on when given more', async () => {
    const parts = toyParts({ batch: 6 });
    const seen: string[] = [];
    const hooks = {
      evaluate: async ({ step }: TrainState) => void seen.push(`evaluated ${step}`) as never,
      save: async ({ step }: TrainState) => void seen.push(`saved ${step}`),
    };
    const options = { ...OPTIONS, totalSteps: 20, max_minutes: 1e-9 };
    const first = await train(parts, options, hooks);
    expect(first).toMatchObject({ interrupted: false, ended: 'max_minutes', state: { step: 1 } });
    expect(seen).toEqual(['evaluated 1', 'saved 1']);
    expect((await train(parts, options, hooks, first.state)).state.step).toBe(1);
    const more = await train(parts, { ...options, max_minutes: 99 }, hooks, first.state);
    expect(more).toMatchObject({ ended: 'last step', state: { step: 20 } });
  });

  it('looks at samples when due, once, also across a stop', async () => {
    const parts = toyParts({ batch: 6 });
    const abort = new AbortController();
    const seen: number[] = [];
    const options = { ...OPTIONS, sample_steps: 4 };
    const hooks = {
      sample: async ({ step }: TrainState) => void seen.push(step),
      onProgress: ({ step }: { step: number }) => void (step === 8 && abort.abort()),
    };
    const { state } = await train(parts, options, { ...hooks, signal: abort.signal });
    expect(seen).toEqual([4]);
    await train(parts, options, hooks, state);
    expect(seen).toEqual([4, 8, 12]);
    await train(toyParts({ batch: 6 }), OPTIONS, hooks);
    expect(seen).toHaveLength(3);
  });

  it('stops before an update that is not finite, names the tensor and leaves the weights alone', async () => {
    const parts = toyParts({ batch: 6 });
    const { loss } = parts;
    let steps = 0;
    parts.loss = (batch, key) =>
      ++steps === 3 ? (scale(loss(batch, key), Infinity) as never) : loss(batch, key);
    let before: Record<string, number[]> = {};
    const counts = memory().numTensors;
    const save = async () => void (before = await valuesOf(parts.trainables));
    const run = train(parts, { ...OPTIONS, save_steps: 2 }, { save });
    await expect(run).rejects.toThrow(NonFiniteError);
    await expect(run).rejects.toThrow(/step 3: the loss is Infinity .* weight\. The update was not made/);
    expect(await valuesOf(parts.trainables)).toEqual(before);
    expect(memory().numTensors).toBe(counts);
  });

  it('asks `locate` for the bad tensor first', async () => {
    const parts = toyParts({ batch: 6 });
    parts.loss = () => scale(sum(parts.trainables.get('bias')!), NaN) as never;
    const run = train(parts, OPTIONS, {
      locate: async (_, __, grads) => `vision_model, not ${[...grads.keys()]}`,
    });
    await expect(run).rejects.toThrow('vision_model, not weight,bias');
  });

  it('reports pace and time left', async () => {
    const seen: { eta: number; rate: number; epoch: number }[] = [];
    await train(toyParts({ batch: 2 }), OPTIONS, {
      onProgress: (p) => void seen.push({ eta: p.eta_seconds, rate: p.images_per_second, epoch: p.epoch }),
    });
    expect(seen[0].rate).toBeGreaterThan(0);
    expect(seen[0].eta).toBeGreaterThan(0);
    expect(seen.at(-1)).toMatchObject({ eta: 0, epoch: 4 });
  });

  it('refuses to train nothing', async () => {
    const parts = toyParts({ batch: 6 });
    parts.trainables.clear();
    parts.loss = () => tensor([1], []) as never;
    await expect(train(parts, OPTIONS)).rejects.toThrow(/expected at least one trainable tensor/);
  });
});

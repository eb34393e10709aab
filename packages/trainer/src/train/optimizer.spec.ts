import { readFileSync } from 'node:fs';
import { memory } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { beforeAll, describe, expect, it } from 'vitest';
import { decays, disposeAdamW, moments } from './optimizer';
import { makeSchedule } from './schedule';
import { toyParts, valuesOf } from '../../spec/toy';
import type { LogRow } from './train';
import { train } from './train';

interface Course {
  max_grad_norm: number;
  losses: number[];
  norms: number[];
  weight: number[];
  bias: number[];
}
const file = new URL('../../fixtures/trainer.json', import.meta.url);
const fixture = JSON.parse(readFileSync(file, 'utf8')) as {
  adamw: Course[];
  decay: [name: string, shape: number[], decayed: boolean][];
};

/** The schedule of the fixture. */
const COSINE = {
  learning_rate: 0.05,
  lr_scheduler_type: 'cosine',
  warmup_ratio: 0.1,
  min_lr_ratio: 0,
} as const;

beforeAll(async () => void (await useBackend('cpu')));

describe('AdamW', () => {
  it.each(fixture.adamw.map((c) => [c.max_grad_norm, c] as const))(
    'follows torch for 30 updates with cosine schedule, clipping at %s',
    async (max_grad_norm, course) => {
      const parts = toyParts({ batch: 6, options: { max_grad_norm } });
      parts.schedule = makeSchedule(COSINE, 30);
      const rows: LogRow[] = [];
      const options = { totalSteps: 30, gradient_accumulation_steps: 1, seed: 0, logging_steps: 1 };
      await train(
        parts,
        { ...options, eval_steps: 99, save_steps: 99 },
        { onLog: (row) => void rows.push(row) },
      );
      rows.forEach((row, i) => {
        expect(row.loss).toBeCloseTo(course.losses[i], 5);
        expect(row.grad_norm).toBeCloseTo(course.norms[i], 5);
      });
      const { weight, bias } = await valuesOf(parts.trainables);
      weight.forEach((x, i) => expect(x).toBeCloseTo(course.weight[i], 5));
      bias.forEach((x, i) => expect(x).toBeCloseTo(course.bias[i], 5));
    },
  );

  it.each([1, 2, 4, 5].flatMap((batch) => fixture.adamw.map((c) => [batch, c.max_grad_norm, c] as const)))(
    "follows torch's whole batch with micro-batches of %s rows, clipping at %s, and logs averages of its losses",
    async (batch, max_grad_norm, course) => {
      const parts = toyParts({ batch, options: { max_grad_norm } });
      parts.schedule = makeSchedule(COSINE, 30);
      const rows: LogRow[] = [];
      const gradient_accumulation_steps = Math.ceil(6 / batch);
      const options = { totalSteps: 30, gradient_accumulation_steps, seed: 0, logging_steps: 4 };
      await train(
        parts,
        { ...options, eval_steps: 99, save_steps: 99 },
        { onLog: (row) => void rows.push(row) },
      );
      const means = [0, 4, 8, 12, 16, 20, 24, 28].map((from) => {
        const some = course.losses.slice(from, from + 4);
        return some.reduce((sum, loss) => sum + loss, 0) / some.length;
      });
      expect(rows.map(({ step }) => step)).toEqual([4, 8, 12, 16, 20, 24, 28, 30]);
      rows.forEach((row, i) => expect(row.loss).toBeCloseTo(means[i], 5));
      const { weight, bias } = await valuesOf(parts.trainables);
      weight.forEach((x, i) => expect(x).toBeCloseTo(course.weight[i], 5));
      bias.forEach((x, i) => expect(x).toBeCloseTo(course.bias[i], 5));
    },
  );

  it("decays the tensors that transformers' Trainer decays", () => {
    expect(fixture.decay.length).toBeGreaterThan(80);
    for (const [name, shape, decayed] of fixture.decay)
      expect([name, decays({ shape })]).toEqual([name, decayed]);
  });

  it('names its moments after the tensors and gives them back', () => {
    const before = memory().numTensors;
    const { optimizer, trainables } = toyParts({ batch: 6 });
    expect([...moments(optimizer).keys()]).toEqual(['m.weight', 'v.weight', 'm.bias', 'v.bias']);
    disposeAdamW(optimizer);
    trainables.forEach((x) => x.dispose());
    expect(memory().numTensors).toBe(before);
  });
});

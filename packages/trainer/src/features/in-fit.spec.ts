import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { memory } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { checkpointDir } from '../run/checkpoint';
import { fit } from '../fit';
import { courseOf, jsonLines, tinyConfig, tinyJob } from '../../spec/tiny';

let root: string;
beforeAll(async () => void (await useBackend('cpu')));
beforeEach(async () => void (root = await tinyJob()));

const config = (given: Record<string, unknown>) => tinyConfig(root, { final_evaluation: 'none', ...given });

describe('a run', () => {
  it('takes the best weights by any metric, in its own direction, and stops early by it', async () => {
    const parts = { predict_with_generate: true, parts_pattern: '^(?<first>\\w+) (?<last>\\w+)$' };
    const by = {
      metric_for_best_model: 'eval_last',
      early_stopping_patience: 2,
      eval_steps: 1,
      save_steps: 1,
    };
    const run = config({ ...parts, ...by, max_steps: 40, learning_rate: 1e-9 });
    const right = ['a dog', 'a cat', 'the mat', 'the hat'];
    const scores = [1, 2, 2, 1];
    const seen: string[] = [];
    const generate = async () => {
      const good = scores.shift() ?? 0;
      return right.map((text, i) => (i < good ? text : 'a fish'));
    };
    const result = await fit(run, { onMessage: (text) => void seen.push(text) }, { generate });
    expect(result).toMatchObject({ steps: 4, ended: 'early stopping', best: { step: 2, score: -0.5 } });
    expect(seen).toContain('ended after step 4: early stopping');
    expect(seen).toContain('best evaluation: step 2 of 4; its weights are the result');
  });

  it('writes samples of fixed images and TensorBoard events, the same across a stop', async () => {
    const run = config({ max_steps: 6, sample_steps: 2, num_samples: 3, save_steps: 3, eval_steps: 3 });
    await fit({ ...run, output_dir: join(root, 'whole') });
    const abort = new AbortController();
    const onProgress = ({ step }: { step: number }) => void (step === 4 && abort.abort());
    await fit(run, { signal: abort.signal, onProgress });
    await fit(run, { resume: true });
    const [whole, legs] = [join(root, 'whole'), run.output_dir];
    const rows = await jsonLines<Record<string, unknown>>(join(whole, 'training-samples.jsonl'));
    expect(rows.map(({ step }) => step)).toEqual([0, 2, 4, 6].flatMap((step) => [step, step, step]));
    expect(rows[0]).toEqual({
      step: 0,
      image: expect.stringContaining('validation'),
      reference: 'a dog',
      text: expect.any(String),
    });
    expect(await jsonLines(join(legs, 'training-samples.jsonl'))).toEqual(rows);
    expect(await courseOf(legs)).toEqual(await courseOf(whole));
    const events = (dir: string) => readFile(join(dir, 'tensorboard', 'events.out.tfevents.blip2'));
    expect((await events(legs)).length).toBe((await events(whole)).length);
    expect((await events(whole)).includes('eval/loss')).toBe(true);
  });

  it('crops and mirrors training images alike across a stop, in another way than without, and says that nothing is cached', async () => {
    const augmented = config({
      image_augmentation: 'crop+flip',
      max_steps: 6,
      save_steps: 1,
      logging_steps: 1,
    });
    const course = async (run: typeof augmented, stops: number[], name: string) => {
      const seen: string[] = [];
      const here = { ...run, output_dir: join(root, name) };
      for (const stop of [...stops, Infinity]) {
        const abort = new AbortController();
        const onProgress = ({ step }: { step: number }) => void (step === stop && abort.abort());
        const resume = stop !== (stops[0] ?? Infinity);
        await fit(here, {
          resume,
          signal: abort.signal,
          onProgress,
          onMessage: (text) => void seen.push(text),
        });
      }
      const last = join(checkpointDir(here.output_dir, 6), 'trainables.safetensors');
      return {
        course: await courseOf(here.output_dir),
        weights: await readFile(last),
        seen: seen.join('\n'),
      };
    };
    const whole = await course(augmented, [], 'whole');
    const legs = await course(augmented, [2, 3], 'legs');
    expect(whole.seen).toMatch(
      /feature cache: none, because image_augmentation \(crop\+flip\) shows other pixels/,
    );
    expect(legs.course).toEqual(whole.course);
    expect(legs.weights.equals(whole.weights)).toBe(true);
    const plain = await course({ ...augmented, image_augmentation: undefined }, [], 'plain');
    expect(plain.weights.equals(whole.weights)).toBe(false);
    await expect(
      fit({ ...augmented, image_augmentation: 'crop', output_dir: join(root, 'legs') }, { resume: true }),
    ).rejects.toThrow(/image_augmentation: was "crop\+flip", is "crop"/);
  });

  it('learns from smoothed labels, with a loss of evaluation that is not smoothed', async () => {
    const first = async (given: Record<string, unknown>) => {
      const dir = join(root, JSON.stringify(given));
      await fit(
        config({ max_steps: 1, logging_steps: 1, lora: { lora_dropout: 0 }, output_dir: dir, ...given }),
      );
      return courseOf(dir);
    };
    const [plain, plainEval] = await first({});
    const [smooth, smoothEval] = await first({ label_smoothing_factor: 0.5 });
    expect(Math.abs(smooth.loss - plain.loss)).toBeGreaterThan(1e-3);
    expect(smoothEval.eval_loss).toBe(plainEval.eval_loss); // the first update is at a rate of 0
  });

  it('gives lower layers of the vision tower a lower rate', async () => {
    const run = (lr_layer_decay: number, name: string) =>
      fit(
        config({
          preset: 'full',
          max_steps: 2,
          warmup_ratio: 0,
          learning_rate: 1e-3,
          lr_layer_decay,
          output_dir: join(root, name),
        }),
      );
    await run(1, 'flat');
    await run(0.01, 'steep');
    const [flat, steep] = [await courseOf(join(root, 'flat')), await courseOf(join(root, 'steep'))];
    expect(steep.at(-1)!.eval_loss).not.toBe(flat.at(-1)!.eval_loss);
  });

  it.each([
    { also_train: ['encoder\\.layers\\.0\\.mlp'] },
    { lora: { target_modules: 'all-linear' } },
    { lora: { bias: 'all' } },
  ])('lets lr_layer_decay act on what else trains in the vision tower: %o', async (given) => {
    const run = config({ ...given, lr_layer_decay: 0.5, max_steps: 1, final_evaluation: 'none' });
    expect(await fit(run)).toMatchObject({ steps: 1 });
  });

  it('refuses lr_layer_decay when the model turns out to have nothing for it, and lets go of the model', async () => {
    const before = memory().numTensors;
    const run = config({ also_train: ['^language_projection'], lr_layer_decay: 0.5 });
    await expect(fit(run)).rejects.toThrow(/lr_layer_decay.*\n.*nothing trains/);
    await expect(fit(config({ also_train: ['nowhere'] }))).rejects.toThrow('matches none of');
    expect(memory().numTensors).toBe(before);
  });

  it('refuses features that would do nothing', () => {
    expect(() => config({ lr_layer_decay: 0.9 })).toThrow(/lr_layer_decay: acts on the vision tower/);
    expect(() => config({ metric_for_best_model: 'eval_exact' })).toThrow(/need predict_with_generate/);
    expect(() => config({ metric_for_best_model: 'eval_x', predict_with_generate: true })).toThrow(
      /expected one of eval_loss, eval_exact, eval_bleu_1, .*, eval_cider_d, .*, found "eval_x"/,
    );
  });
});

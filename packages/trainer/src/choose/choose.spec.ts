import { readFile, rm } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { TINY_MODEL, tinyJob } from '../../spec/tiny';
import { parseConfig } from '../config';
import { fit } from '../fit';
import { chooseConfig } from '.';
import { chooseSettings } from './choose';
import type { Facts } from './facts';
import { unlikelyToLearn } from './unlikely';

const facts = (more: Partial<Facts> = {}): Facts => ({
  pictures: 60,
  rows: 60,
  splits: [],
  heldOut: 0,
  captions: true,
  questions: false,
  objective: 'captioning',
  width: 2560,
  free: 100 * 2 ** 30,
  ...more,
});
const RAW = { model: 'm', data: 'd' };
const chosen = (more: Partial<Facts> = {}, raw = {}) =>
  parseConfig(chooseSettings({ ...RAW, ...raw }, facts(more)).settings);

describe('chooseSettings', () => {
  it('holds pictures out once there are enough, and only for validation if there are few', () => {
    expect(chosen({ pictures: 12, rows: 12 }).split_fractions).toBeUndefined();
    expect(chosen({ pictures: 20, rows: 20 }).split_fractions).toEqual({ validation: 0.3 });
    expect(chosen({ pictures: 50, rows: 50 }).split_fractions).toEqual({ validation: 0.2 });
    expect(chosen().split_fractions).toEqual({ validation: 0.167, test: 0.167 });
    expect(chosen({ pictures: 2000, rows: 2000 }).split_fractions).toEqual({ validation: 0.1, test: 0.1 });
    expect(chosen({ splits: ['train', 'test'], heldOut: 9 }).split_fractions).toBeUndefined();
    expect(chosen({}, { eval_data: 'other' }).split_fractions).toBeUndefined();
  });

  it.each([12, 60, 200, 899])('trains at least 300 steps on %i pictures', (n) => {
    const { num_train_epochs, per_device_train_batch_size } = chosen({ pictures: n, rows: n });
    const train = n < 20 ? n : n - 2 * Math.max(10, Math.round(0.1 * n));
    expect(num_train_epochs * Math.ceil(train / per_device_train_batch_size)).toBeGreaterThanOrEqual(300);
  });

  it('trains three epochs on thousands of pictures and one on ten thousands', () => {
    expect(chosen({ pictures: 6000, rows: 6000 }).num_train_epochs).toBe(3);
    expect(chosen({ pictures: 50_000, rows: 50_000 }).num_train_epochs).toBe(1);
  });

  it('takes the task of the rows', () => {
    expect(chosen({ captions: false, questions: true })).toMatchObject({
      task: 'vqa',
      metric_for_best_model: 'eval_accuracy',
    });
    expect(chosen({ questions: true })).toMatchObject({
      task: 'caption',
      metric_for_best_model: 'eval_cider_d',
    });
  });

  it('raises the rate for narrow models, up to five times', () => {
    const rates = [2560, 1280, 192].map((width) => chosen({ width }).learning_rate);
    expect(rates).toEqual([2e-4, 4e-4, 1e-3]);
  });

  it('chooses for a model for retrieval: all but the tower, larger batches, recall, no generated texts', () => {
    const retrieval = { objective: 'retrieval', width: 192 } as const;
    const made = chosen({ ...retrieval, pictures: 6000, rows: 6000 });
    expect(made).toMatchObject({
      ...{ preset: 'qformer-projection', per_device_train_batch_size: 32, learning_rate: 2e-4 },
      ...{ metric_for_best_model: 'eval_r_mean', predict_with_generate: false, controls: true },
    });
    expect(chosen({ ...retrieval, width: 768 }, { preset: 'lora' })).toMatchObject({
      ...{ preset: 'lora', learning_rate: 2e-4, per_device_train_batch_size: 16 },
    });
  });

  it('names the preset, and the recommended one if it is another', () => {
    const what = (rows: number, { width = 2560, preset = undefined as string | undefined } = {}) =>
      chooseSettings({ ...RAW, preset }, facts({ pictures: rows, rows, width })).choices.find(
        ({ name }) => name === 'preset',
      )?.what;
    expect(what(60)).toBe('lora, which is recommended for 40 rows');
    expect(what(40_000)).toMatch(/^lora, the default; lora\+qformer is recommended for 32,000 rows if/);
    expect(what(4000, { width: 192 })).toMatch(/^lora, the default; full is recommended for 3,200 rows if/);
    expect(what(60, { preset: 'lora' })).toBeUndefined();
  });

  it('takes half of the free disk for the cache', () => {
    expect(chosen().cache_limit_mb).toBe(50 * 1024);
  });

  it('leaves given settings, and what they decide, as they are', () => {
    const given = {
      ...{
        task: 'caption',
        learning_rate: 0.5,
        max_steps: 7,
        per_device_train_batch_size: 3,
        eval_steps: 5,
        warmup_steps: 1,
      },
      ...{
        split_fractions: { test: 0.4 },
        cache_limit_mb: 9,
        controls: false,
        logging_steps: 2,
        sample_steps: 3,
        save_steps: 4,
      },
    };
    const { settings, choices } = chooseSettings(
      { ...RAW, ...given },
      facts({ questions: true, width: 100 }),
    );
    expect(settings).toEqual({ ...RAW, ...given });
    expect(choices.map(({ name }) => name)).not.toContain('learning rate');
  });

  it('evaluates at most 300 pictures of a split', () => {
    expect(chosen({ pictures: 6000, rows: 6000 }).eval_limit).toBe(300);
    expect(chosen().eval_limit).toBeUndefined();
  });
});

describe('unlikelyToLearn', () => {
  const size = { steps: 300, stepsPerEpoch: 6, train: 48, validation: 6, final: 6 };

  it('has no objection to a run that the settings were chosen for', () => {
    expect(unlikelyToLearn({}, size)).toEqual([]);
  });

  it('names each reason, with what to do', () => {
    expect(unlikelyToLearn({}, { ...size, steps: 12 })).toEqual([
      expect.stringMatching(/^12 optimizer steps: .* --epochs 50 /),
    ]);
    expect(unlikelyToLearn({ max_steps: 12 }, { ...size, steps: 12 })).toEqual([
      expect.stringContaining('--max-steps 300'),
    ]);
    expect(unlikelyToLearn({}, { ...size, train: 12, validation: undefined, final: undefined })).toEqual([
      expect.stringMatching(/^12 pictures for training: .*by heart/),
      expect.stringMatching(/^no held-out pictures/),
    ]);
    expect(unlikelyToLearn({}, { ...size, final: 4 })).toEqual([
      expect.stringMatching(/^4 held-out pictures: too few/),
    ]);
  });
});

describe('chooseConfig', () => {
  let root: string;
  beforeEach(async () => void (root = await tinyJob()));
  afterEach(async () => rm(root, { recursive: true }));

  it('reads data and model, and its config runs as it is', async () => {
    const raw = {
      model: TINY_MODEL,
      data: root,
      output_dir: `${root}/run`,
      cache_dir: `${root}/features`,
      backend: 'cpu',
      num_train_epochs: 1,
    };
    const { config, choices } = await chooseConfig(raw);
    expect(choices.map(({ name }) => name)).toEqual([
      'preset',
      'steps',
      'intervals',
      'learning rate',
      'evaluation',
      'feature cache',
    ]);
    const said: string[] = [];
    const sampled: number[] = [];
    const hooks = {
      onMessage: (text: string) => void said.push(text),
      onSamples: ([{ step }]: { step: number }[]) => void sampled.push(step),
    };
    const { verdict, next } = await fit(config, hooks);
    expect(said.filter((text) => text.startsWith('warning: '))).toHaveLength(3);
    expect(sampled).toEqual([0, 1]);
    expect(verdict).toMatchObject({ outcome: 'unclear', pictures: 4 });
    expect(next!.command).toEqual(['data', 'check', root]);
    const results = JSON.parse(await readFile(`${root}/run/results.json`, 'utf8')) as object;
    expect(results).toMatchObject({ verdict, next });
  });

  it('chooses only the task for settings that were complete', async () => {
    const raw = { model: TINY_MODEL, data: root };
    expect(await chooseConfig(raw, { only: 'task' })).toEqual({ config: parseConfig(raw), choices: [] });
  });
});

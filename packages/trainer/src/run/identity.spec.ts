import { appendFile, cp, mkdtemp, open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Example } from '@blip2/data-captions';
import { describe, expect, it } from 'vitest';
import type { FitConfig } from '../config';
import { parseConfig } from '../config';
import { baseFingerprint, dataFingerprint, differences, runIdentity } from './identity';
import { TINY_MODEL } from '../../spec/tiny';

const example = (image: string, caption: string): Example => ({ image, caption, fields: {}, source: 'x:1' });
const TRAIN = [example('/a/1.png', 'one'), example('/a/2.png', 'two')];
const config = parseConfig({ model: TINY_MODEL, data: 'd' });

/** What a checkpoint of version 0.1 holds of the settings of its run. */
const SETTINGS_0_1 = [
  ...['task', 'preset', 'lora', 'also_train', 'seed', 'precision', 'learning_rate', 'weight_decay'],
  ...[
    'adam_beta1',
    'adam_beta2',
    'adam_epsilon',
    'max_grad_norm',
    'label_smoothing_factor',
    'lr_layer_decay',
  ],
  ...['lr_scheduler_type', 'warmup_ratio', 'warmup_steps', 'min_lr_ratio', 'num_train_epochs', 'max_steps'],
  ...['per_device_train_batch_size', 'gradient_accumulation_steps', 'prompt', 'max_text_length'],
  ...['image_augmentation', 'train_limit', 'metric_for_best_model', 'greater_is_better'],
] as (keyof FitConfig)[];

describe('run identity', () => {
  it('has the settings that checkpoints have had from the first version on', async () => {
    const optional = {
      also_train: ['qformer'],
      warmup_steps: 3,
      max_steps: 9,
      prompt: 'p',
      max_text_length: 9,
    };
    const more = { image_augmentation: 'crop', train_limit: 2, greater_is_better: false };
    const other = {
      eval_limit: 1,
      eval_steps: 2,
      cache_dir: 'c',
      max_minutes: 1,
      early_stopping_patience: 1,
    };
    const full = parseConfig({ model: TINY_MODEL, data: 'd', ...optional, ...more, ...other });
    const { settings } = await runIdentity(full, TRAIN, 'cpu', 1);
    expect(settings).toEqual(Object.fromEntries(SETTINGS_0_1.map((key) => [key, full[key]])));
    expect(Object.keys(settings)).toHaveLength(SETTINGS_0_1.length);
  });

  it('is the same for the same run in another place, whatever is only looked at', async () => {
    const there = await mkdtemp(join(tmpdir(), 'blip2-identity-'));
    await cp(TINY_MODEL, there, { recursive: true });
    const moved = TRAIN.map((e) => ({ ...e, image: e.image.replace('/a/', '/b/') }));
    const other = { ...config, model: there, output_dir: 'elsewhere', logging_steps: 99, controls: true };
    const [a, b] = [await runIdentity(config, TRAIN, 'cpu', 1), await runIdentity(other, moved, 'wasm', 1)];
    expect(differences(a, b)).toEqual([]);
  });

  it('lists settings, weights and examples that changed', async () => {
    const was = await runIdentity(config, TRAIN, 'cpu', 1);
    const now = await runIdentity({ ...config, warmup_steps: 3, seed: 1 }, TRAIN.toReversed(), 'cpu', 1);
    expect(
      differences(was, { ...now, base: { ...(now.base as object), 'model.safetensors': 'other' } }),
    ).toEqual([
      'seed: was 0, is 1',
      'warmup_steps: was not set, is 3',
      'model: not the files the run began with: model.safetensors',
      'data: the training examples are not those the run began with',
    ]);
    expect(dataFingerprint(TRAIN)).not.toBe(dataFingerprint([TRAIN[0], { ...TRAIN[1], caption: 'three' }]));
  });

  it('sees a changed byte in the middle of the weights', async () => {
    const there = await mkdtemp(join(tmpdir(), 'blip2-identity-'));
    await cp(TINY_MODEL, there, { recursive: true });
    const before = await baseFingerprint(there);
    const handle = await open(join(there, 'model.safetensors'), 'r+');
    const { size } = await handle.stat();
    await handle.write(Buffer.from([0x5a]), 0, 1, size >> 1);
    await handle.close();
    expect(await baseFingerprint(there)).not.toEqual(before);
  });

  it.each(['config.json', 'tokenizer.json', 'preprocessor_config.json'])(
    'sees a changed %s',
    async (name) => {
      const there = await mkdtemp(join(tmpdir(), 'blip2-identity-'));
      await cp(TINY_MODEL, there, { recursive: true });
      const before = await baseFingerprint(there);
      await appendFile(join(there, name), ' ');
      expect(await baseFingerprint(there)).not.toEqual(before);
    },
  );
});

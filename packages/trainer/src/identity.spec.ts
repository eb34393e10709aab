import { appendFile, cp, mkdtemp, open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Example } from '@blip2/data-captions';
import { describe, expect, it } from 'vitest';
import { parseConfig } from './config';
import { baseFingerprint, dataFingerprint, differences, runIdentity } from './identity';
import { TINY_MODEL } from './tiny';

const example = (image: string, caption: string): Example => ({ image, caption, fields: {}, source: 'x:1' });
const TRAIN = [example('/a/1.png', 'one'), example('/a/2.png', 'two')];
const config = parseConfig({ model: TINY_MODEL, data: 'd' });

describe('run identity', () => {
  it('is the same for the same run in another place, whatever is only looked at', async () => {
    const there = await mkdtemp(join(tmpdir(), 'blip2-identity-'));
    await cp(TINY_MODEL, there, { recursive: true });
    const moved = TRAIN.map((e) => ({ ...e, image: e.image.replace('/a/', '/b/') }));
    const other = { ...config, model: there, output_dir: 'elsewhere', logging_steps: 99, controls: true };
    const [a, b] = [await runIdentity(config, TRAIN, 'cpu'), await runIdentity(other, moved, 'wasm')];
    expect(differences(a, b)).toEqual([]);
  });

  it('lists settings, weights and examples that changed', async () => {
    const was = await runIdentity(config, TRAIN, 'cpu');
    const now = await runIdentity({ ...config, warmup_steps: 3, seed: 1 }, TRAIN.toReversed(), 'cpu');
    expect(differences(was, { ...now, base: 'other' })).toEqual([
      'seed: was 0, is 1',
      'warmup_steps: was not set, is 3',
      'model: weights, configuration, tokenizer or preprocessor of the base are not those the run began with',
      'data: the training examples are not those the run began with',
    ]);
    expect(dataFingerprint(TRAIN)).not.toBe(dataFingerprint([TRAIN[0], { ...TRAIN[1], caption: 'three' }]));
  });

  it('sees a changed byte at the end of the weights', async () => {
    const there = await mkdtemp(join(tmpdir(), 'blip2-identity-'));
    await cp(TINY_MODEL, there, { recursive: true });
    const before = await baseFingerprint(there);
    const handle = await open(join(there, 'model.safetensors'), 'r+');
    const { size } = await handle.stat();
    await handle.write(Buffer.from([0x5a]), 0, 1, size - 1);
    await handle.close();
    expect(await baseFingerprint(there)).not.toBe(before);
  });

  it.each(['config.json', 'tokenizer.json', 'preprocessor_config.json'])(
    'sees a changed %s',
    async (name) => {
      const there = await mkdtemp(join(tmpdir(), 'blip2-identity-'));
      await cp(TINY_MODEL, there, { recursive: true });
      const before = await baseFingerprint(there);
      await appendFile(join(there, name), ' ');
      expect(await baseFingerprint(there)).not.toBe(before);
    },
  );
});

import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { useBackend } from '@blip2/nn/node';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { fit } from '../fit';
import { courseOf, tinyConfig, tinyJob } from '../../spec/tiny';

let root: string;
beforeAll(async () => void (await useBackend('cpu')));
beforeEach(async () => void (root = await tinyJob()));

describe('the feature cache of a run', () => {
  it.for([
    ['lora', 'cpu', 'float32', {}],
    ['lora', 'cpu', 'float32', { cache_memory_mb: 0 }],
    ['qformer', 'cpu', 'float32', { cache_memory_mb: 0 }],
    ['lora', 'native', 'float32', {}],
    ['qformer', 'native', 'float32', {}],
    ['lora', 'native', 'bfloat16', {}],
    ['qformer-projection', 'native', 'bfloat16', { cache_memory_mb: 0 }],
    ['lora', 'native', 'int8', {}],
    ['qformer-projection', 'native', 'int8', { cache_memory_mb: 0 }],
  ] as const)(
    'gives the same training with and without the cache, bit by bit (%s, %s, %s, %o)',
    async ([preset, backend, precision, given], { skip }) => {
      const started = await useBackend(backend, { precision }).then(Boolean, () => false);
      skip(!started, `no backend ${backend} with ${precision} here`);
      const lengths = { final_evaluation: 'none', num_train_epochs: 2, learning_rate: 2e-3 };
      const config = tinyConfig(root, { ...lengths, preset, backend, precision, ...given });
      const courses: unknown[] = [];
      const messages: string[] = [];
      for (const [name, cache_features] of [
        ['plain', false],
        ['cold', true],
        ['warm', true],
      ] as const) {
        const output_dir = join(root, name);
        await fit(
          { ...config, cache_features, output_dir },
          { onMessage: (text) => void messages.push(text) },
        );
        courses.push(await courseOf(output_dir));
      }
      await useBackend('cpu');
      expect(courses[1]).toEqual(courses[0]);
      expect(courses[2]).toEqual(courses[0]);
      const said = messages.filter((text) => text.startsWith('feature cache'));
      expect(said[0]).toBe('feature cache: off');
      const where = 'cache_memory_mb' in given ? 'read batch by batch' : 'held in memory';
      expect(said[1]).toContain(`${config.cache_dir}`);
      expect(said[1]).toContain(`${where}: 0 found, 12 computed`);
      expect(said[2]).toContain(`${where}: 12 found, 0 computed`);
    },
  );

  it('says why there is no cache when it would be too large', async () => {
    const messages: string[] = [];
    const config = tinyConfig(root, { max_steps: 1, cache_limit_mb: 0, cache_memory_mb: 0 });
    await fit(config, { onMessage: (text) => void messages.push(text) });
    expect(messages).toContainEqual(
      expect.stringMatching(
        /^feature cache: none; query_embeds of 16 images.* is above cache_limit_mb \(0\)/,
      ),
    );
  });

  it('keeps features in memory when their folder cannot be made', async () => {
    const messages: string[] = [];
    const cache_dir = join(root, 'file');
    await writeFile(cache_dir, '');
    const onMessage = (text: string) => void messages.push(text);
    await fit(tinyConfig(root, { max_steps: 1, cache_dir }), { onMessage });
    expect(messages).toContainEqual(
      expect.stringMatching(/file cannot be written \(ENOTDIR.*kept in memory only/),
    );
    const large = tinyConfig(root, {
      max_steps: 1,
      cache_dir,
      cache_memory_mb: 0,
      output_dir: join(root, 'x'),
    });
    await expect(fit(large)).rejects.toThrow(/cache_dir: .*file cannot be written/);
    expect(existsSync(join(root, 'x'))).toBe(false);
  });
});

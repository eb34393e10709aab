/** A weight file that is rewritten during a run: nothing is saved that was computed with it. */
import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it, vi } from 'vitest';
import { fit } from '../fit';
import { tinyConfig, tinyJob } from '../../spec/tiny';
import { checkpointDir } from './checkpoint';

const changed = vi.hoisted(() => ({ from: 0, step: 0 }));
vi.mock('@blip2/nn', async (original) => ({
  ...(await original<object>()),
  checkStoredFiles: () => {
    if (changed.step >= changed.from) throw new Error('model.safetensors: the file was changed');
  },
}));

it.each([
  ['a checkpoint', 4, 2],
  ['the result', 5, 4],
])('is named before %s is saved, and earlier checkpoints stay', async (_what, from, last) => {
  const root = await tinyJob();
  const config = tinyConfig(root, {
    max_steps: 5,
    save_steps: 2,
    final_evaluation: 'none',
    logging_steps: 1,
  });
  Object.assign(changed, { from, step: 0 });
  const onProgress = ({ step }: { step: number }) => void (changed.step = step);
  await expect(fit(config, { onProgress })).rejects.toThrow('model.safetensors: the file was changed');
  expect(existsSync(checkpointDir(config.output_dir, last))).toBe(true);
  expect(existsSync(checkpointDir(config.output_dir, last + 2))).toBe(false);
  expect(existsSync(join(config.output_dir, 'adapter'))).toBe(false);
  await rm(root, { recursive: true });
});

/** What a run keeps when training breaks down or something fails in the middle of it. */
import { appendFile, mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { useBackend } from '@blip2/nn/node';
import { openWeights } from '@blip2/weights/node';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { fit } from '../fit';
import type { FitHooks } from '../hooks';
import { courseOf, tinyConfig, tinyJob } from '../../spec/tiny';
import { checkpointDir, listCheckpoints } from './checkpoint';

let root: string;
beforeAll(async () => void (await useBackend('cpu')));
beforeEach(async () => void (root = await tinyJob()));

const short = (given: Record<string, unknown> = {}) =>
  tinyConfig(root, { max_steps: 4, save_steps: 99, final_evaluation: 'none', logging_steps: 1, ...given });

/** The message of the error that ends a run. */
const failure = (config: ReturnType<typeof short>, hooks: FitHooks = {}) =>
  fit(config, hooks).then(
    () => expect.unreachable(),
    (error: Error) => error.message,
  );

/** How many values of the checkpoints and the result are not finite. */
async function badValues(dir: string): Promise<number> {
  let bad = 0;
  for (const file of (await readdir(dir, { recursive: true })).filter((name) =>
    /\.safetensors$/.test(name),
  )) {
    const reader = await openWeights(join(dir, file));
    for (const name of reader.entries.keys())
      bad += (await reader.readFloat32(name)).filter((value) => !Number.isFinite(value)).length;
    await reader.close();
  }
  return bad;
}

describe('weights that an update makes not finite', () => {
  const hot = { learning_rate: 3e38, warmup_ratio: 0, preset: 'lora+qformer' };

  it('end the run at the first step, and nothing is saved', async () => {
    const config = short({ ...hot, max_steps: 1 });
    expect(await failure(config)).toMatch(
      /^step 1: the update left values in \S+ that are not finite\. They were not saved\. There is no checkpoint from before\. A lower/,
    );
    expect(existsSync(join(config.output_dir, 'adapter'))).toBe(false);
    expect(await listCheckpoints(config.output_dir)).toEqual([]);
  });

  it('leave the checkpoints from before, and none is called good that is not', async () => {
    const config = short({
      learning_rate: 1e30,
      lr_scheduler_type: 'constant',
      max_grad_norm: 0,
      save_steps: 1,
    });
    const message = await failure(config);
    const [last] = await listCheckpoints(config.output_dir);
    expect(last).toBeGreaterThan(0);
    expect(message).toContain(checkpointDir(config.output_dir, last));
    expect(await badValues(config.output_dir)).toBe(0);
  });
});

describe('a failure in the middle of a run', () => {
  it('saves a checkpoint first, from which the run goes on as if nothing had happened', async () => {
    const settings = { cache_features: false, max_steps: 9, eval_steps: 99 };
    const [config, whole] = [short(settings), short({ ...settings, output_dir: join(root, 'whole') })];
    await fit(whole, {});
    const picture = join(root, 'train', '1-2.png');
    const bytes = await readFile(picture);
    const onProgress = async ({ step }: { step: number }) => void (step === 1 && (await rm(picture)));
    const message = await failure(config, { onProgress });
    expect(message).toMatch(
      /1-2\.png: the image cannot be read .*\nThe weights after step (\d) were saved in .*step-00000\1; continue with --resume\.$/,
    );
    await writeFile(picture, bytes);
    await fit(config, { resume: true });
    expect(await courseOf(config.output_dir)).toEqual(await courseOf(whole.output_dir));
    const adapter = (dir: string) => readFile(join(dir, 'adapter', 'adapter_model.safetensors'));
    expect(await adapter(config.output_dir)).toEqual(await adapter(whole.output_dir));
  });

  it('is the loss of the run folder: it is named', async () => {
    const config = short();
    const onProgress = ({ step }: { step: number }) =>
      void (step === 2 && rmSync(config.output_dir, { recursive: true }));
    expect(await failure(config, { onProgress })).toMatch(
      /^\S+: the folder was removed or moved during the run: ENOENT/,
    );
    expect(existsSync(config.output_dir)).toBe(false);
  });

  it('goes on when an old checkpoint cannot be deleted, and says so', async () => {
    const messages: string[] = [];
    const config = short({ save_steps: 1, save_total_limit: 1, eval_steps: 99 });
    const onProgress = ({ step }: { step: number }) => {
      // a folder of this name that is not empty: the old checkpoint cannot be renamed
      if (step === 2)
        void mkdir(join(checkpointDir(config.output_dir, 1) + '.tmp', 'x'), { recursive: true });
    };
    await fit(config, { onProgress, onMessage: (text) => void messages.push(text) });
    expect(messages.join('\n')).toMatch(/an old checkpoint cannot be deleted: .*ENOTEMPTY.*step-000001/);
    expect(await listCheckpoints(config.output_dir)).toContain(4);
  });
});

describe('a damaged metrics.jsonl', () => {
  it('is named with its line before the run goes on', async () => {
    const config = short({ save_steps: 1 });
    const abort = new AbortController();
    await fit(config, {
      signal: abort.signal,
      onProgress: ({ step }) => void (step === 2 && abort.abort()),
    });
    const file = join(config.output_dir, 'metrics.jsonl');
    const text = await readFile(file, 'utf8');
    await writeFile(file, text.replace('{"step":2', '{"step":2,,'));
    await appendFile(file, text);
    const seen: string[] = [];
    const message = await failure(config, { resume: true, onPhase: ({ name }) => void seen.push(name) });
    expect(message).toMatch(/metrics\.jsonl:2: expected JSON, found "\{\\"step\\":2,,/);
    expect(seen).not.toContain('caching features');
    await rm(file);
    await mkdir(file);
    expect(await failure(config, { resume: true })).toMatch(/metrics\.jsonl: .*found a folder$/);
  });
});

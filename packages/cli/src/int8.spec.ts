/** `--precision int8`: the result of a run is used with the weights that it was trained with. */
import { cp, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { availableBackends } from '@blip2/nn/node';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { cli, fitArgs, IMAGE, TINY, tinyData } from '../spec/testing';

const backends = await availableBackends();

describe.skipIf(!backends.includes('native'))('int8', () => {
  let root: string;
  const native = ['--backend', 'native', '--precision', 'int8'];
  const run = (preset: string) => join(root, preset);
  beforeAll(async () => {
    root = await tinyData();
    vi.stubEnv('XDG_CACHE_HOME', await mkdtemp(join(tmpdir(), 'blip2-int8-')));
    for (const preset of ['lora', 'qformer']) {
      const { err } = await cli(fitArgs(root, run(preset), '--preset', preset, ...native));
      expect(err).not.toContain('error:');
    }
  });
  afterAll(async () => {
    await rm(process.env.XDG_CACHE_HOME!, { recursive: true });
    vi.unstubAllEnvs();
    await rm(root, { recursive: true });
  });

  it.each(['lora', 'qformer'])('evaluate RUN has the final table of the run: %s', async (preset) => {
    const { out, err } = await cli(['evaluate', run(preset), '--json', '--controls', '--backend', 'native']);
    expect(err).toContain(`int8 weights: rounded as in the run ${run(preset)}`);
    const { table } = JSON.parse(await readFile(join(run(preset), 'results.json'), 'utf8'));
    // A whole model is evaluated without its base.
    const rows = (all: { kind: string }[]) =>
      all.filter(({ kind }) => kind !== 'base').map((row) => ({ ...row, name: undefined }));
    expect(rows(JSON.parse(out).rows)).toEqual(rows(table.rows));
  });

  it('an adapter outside of its run is used without smoothing, which is printed', async () => {
    const adapter = join(root, 'moved');
    await cp(join(run('lora'), 'adapter'), adapter, { recursive: true });
    const { code, err } = await cli(['caption', IMAGE, '--model', TINY, '--adapter', adapter, ...native]);
    expect(code).toBe(0);
    expect(err).toContain(
      'int8 weights: without smoothing, which is measured by a run and found in its folder',
    );
  });

  it('merge writes the exact weights with the adapter', async () => {
    const args = ['--model', TINY, '--adapter', join(run('lora'), 'adapter'), '--backend', 'native'];
    const output = join(root, 'merged');
    const { code, err } = await cli(['merge', ...args, '--output', output]);
    expect([code, err]).toEqual([0, expect.not.stringContaining('int8')]);
    const caption = async (...more: string[]) =>
      (await cli(['caption', IMAGE, ...more, '--backend', 'native', '--precision', 'float32'])).out;
    expect(await caption('--model', output)).toBe(await caption(...args.slice(0, 4)));
  });
});

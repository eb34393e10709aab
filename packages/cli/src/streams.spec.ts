/** What happens to `blip2 fit` when nobody reads its output any more, or when the terminal is closed. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { readFile, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bundle } from '../../../tsup.config';
import { fitArgs, tinyData } from '../spec/testing';

let root: string;
let bin: string;
beforeAll(async () => {
  root = await tinyData();
  bin = await bundle(new URL('bin.ts', import.meta.url));
}, 60_000);
afterAll(() => rm(root, { recursive: true, force: true }));

const LONG = [
  'max_steps=100000',
  'save_steps=100000',
  'eval_steps=3',
  'logging_steps=1',
  'final_evaluation=none',
];

/** A long run, and its standard error until it trains. */
async function training(name: string) {
  const output = join(root, name);
  const args = fitArgs(root, output, ...LONG.flatMap((setting) => ['--set', setting]));
  const child = spawn(process.execPath, [bin, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let err = '';
  child.stderr.on('data', (chunk: Buffer) => void (err += chunk));
  while (!err.includes('validation loss')) await once(child.stderr, 'data');
  return { child, output, err: () => err };
}

/** The newest checkpoint is of the last step that was logged. */
async function expectSaved(output: string): Promise<void> {
  const metrics = await readFile(join(output, 'metrics.jsonl'), 'utf8');
  const { step } = JSON.parse(metrics.trim().split('\n').at(-1)!) as { step: number };
  const newest = (await readdir(join(output, 'checkpoints'))).sort().at(-1);
  expect(newest).toBe(`step-${String(step).padStart(6, '0')}`);
}

describe('a run', () => {
  it('saves a checkpoint when nobody reads stderr any more', async () => {
    const { child, output } = await training('stderr');
    child.stderr.destroy();
    const [code, signal] = (await once(child, 'exit')) as [number, string];
    expect([code, signal]).toEqual([130, null]);
    await expectSaved(output);
  }, 60_000);

  it('saves a checkpoint at SIGHUP, also when it comes twice', async () => {
    const { child, output, err } = await training('hup');
    child.kill('SIGHUP');
    child.kill('SIGHUP');
    const [code] = (await once(child, 'close')) as [number];
    expect(code).toBe(130);
    expect(err()).toMatch(/stopped at step \d+; the checkpoint is in .*\ncontinue with: .*blip2 fit/);
    await expectSaved(output);
  }, 60_000);

  it.runIf(process.platform === 'linux')(
    'reports a full stdout in one line, after its work is done',
    async () => {
      const output = join(root, 'full');
      const full = openSync('/dev/full', 'w');
      const args = fitArgs(root, output, '--set', 'final_evaluation=none', '--set', 'max_steps=1');
      const child = spawn(process.execPath, [bin, ...args], { stdio: ['ignore', full, 'pipe'] });
      closeSync(full);
      let err = '';
      child.stderr!.on('data', (chunk: Buffer) => void (err += chunk));
      const [code] = (await once(child, 'close')) as [number];
      expect(code).toBe(1);
      expect(err).toMatch(/error: stdout: the result cannot be written: ENOSPC[^\n]*\n$/);
      expect(await readdir(output)).toEqual(expect.arrayContaining(['adapter', 'report.html']));
    },
    60_000,
  );
});

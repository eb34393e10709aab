#!/usr/bin/env node
// The same fit command on every backend of this machine: images per second, and whether the losses agree.
//   node tools/bench/backends.mjs --steps 20 --backends native,tensorflow,wasm,cpu
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const { values: given } = parseArgs({
  options: {
    steps: { type: 'string', default: '20' },
    backends: { type: 'string', default: 'native,tensorflow,wasm,cpu' },
    tolerance: { type: 'string', default: '1e-4' },
  },
});

/** Every step's loss and the images per second of the last step. */
function fit(backend) {
  const output = mkdtempSync(join(tmpdir(), 'blip2-backends-'));
  const settings = {
    ...{ max_steps: given.steps, logging_steps: 1, train_limit: 160, eval_limit: 8, controls: false },
    ...{ eval_steps: 100000, predict_with_generate: false, save_steps: 100000 },
  };
  const set = Object.entries(settings).flatMap(([key, value]) => ['--set', `${key}=${value}`]);
  const bin = join(ROOT, 'packages/cli/dist/bin.js');
  const run = join(output, 'run');
  const args = ['fit', 'recipes/emoji-demo.yaml', '--backend', backend, '--output', run, ...set];
  try {
    execFileSync(process.execPath, [bin, ...args], { cwd: ROOT, stdio: ['ignore', 'ignore', 'pipe'] });
    const lines = readFileSync(join(run, 'metrics.jsonl'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    const steps = lines.filter(({ loss }) => loss !== undefined);
    const [first, last] = [steps[0], steps.at(-1)];
    const perStep = (last.seconds - first.seconds) / (last.step - first.step);
    return { losses: steps.map(({ loss }) => loss), imagesPerSecond: 16 / perStep };
  } catch (error) {
    throw new Error(
      `${backend}: ${error.stderr?.toString().trim().split('\n').slice(-3).join(' | ') ?? error.message}`,
    );
  } finally {
    rmSync(output, { recursive: true, force: true });
  }
}

const backends = given.backends.split(',');
let reference;
let apart = false;
console.log(
  `| backend | images/s | loss after ${given.steps} steps | largest difference from ${backends[0]} |`,
);
console.log('| --- | ---: | ---: | ---: |');
for (const backend of backends) {
  const { losses, imagesPerSecond } = fit(backend);
  reference ??= losses;
  const difference = Math.max(
    ...losses.map((loss, i) => Math.abs(loss - reference[i]) / Math.abs(reference[i])),
  );
  apart ||= !(difference <= Number(given.tolerance));
  console.log(
    `| ${backend} | ${imagesPerSecond.toFixed(1)} | ${losses.at(-1).toFixed(6)} | ${difference.toExponential(1)} |`,
  );
}
if (apart) {
  console.error(`backends: a loss differs by more than ${given.tolerance}, relatively`);
  process.exitCode = 1;
}

#!/usr/bin/env node
// Runs the same fit command on every backend of this machine: images per second, and whether the losses agree.
//   node tools/bench/backends.mjs --steps 20 --backends native,wasm
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { BACKENDS } from '@blip2/nn';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const CLI = join(ROOT, 'packages/cli/dist/bin.js');
const HELP = `Trains on several backends with one and the same fit command, and compares every step's loss with the first one's.

  node tools/bench/backends.mjs [options]     after npx nx run-many -t build and npx nx run emoji-captions:render

Options
  --backends NAMES   default ${BACKENDS.join()}; native:LEVEL computes at that instruction-set level (avx2, portable …),
                     to show how much rounding alone changes the losses
  --optional NAMES   backends that may be missing on this machine; they are reported as skipped
  --steps N          default 20
  --batch N          images per step; default 4, because plain JavaScript is part of the comparison
  --preset NAME      trainable set; default lora
  --seed N           of the run; default 0
  --tolerance X      largest relative difference of a loss; default 1e-4

Exit code: 0 all agree, 1 not`;

const { values: options } = parseArgs({
  options: {
    backends: { type: 'string', default: BACKENDS.join() },
    optional: { type: 'string', default: '' },
    steps: { type: 'string', default: '20' },
    batch: { type: 'string', default: '4' },
    preset: { type: 'string', default: 'lora' },
    seed: { type: 'string', default: '0' },
    tolerance: { type: 'string', default: '1e-4' },
    help: { type: 'boolean', default: false },
  },
});

/** A small version of the demo's recipe. Every image occurs once, and backends share no cached features. */
function command(backend, output) {
  const settings = {
    ...{ preset: options.preset, max_steps: options.steps, per_device_train_batch_size: options.batch },
    ...{ train_limit: options.steps * options.batch, eval_limit: 4, logging_steps: 1, seed: options.seed },
    ...{ eval_steps: 100000, save_steps: 100000, final_evaluation: 'none', controls: false },
    ...{ predict_with_generate: false, precision: 'float32', cache_dir: join(output, 'features') },
  };
  const set = Object.entries(settings).flatMap(([key, value]) => ['--set', `${key}=${value}`]);
  return ['fit', 'recipes/emoji-demo.yaml', '--backend', backend, '--output', join(output, 'run'), ...set];
}

/** The process of native:LEVEL begins with level.mjs. */
function environment(level) {
  return level && { NODE_OPTIONS: `--import ${join(ROOT, 'tools/bench/level.mjs')}`, BLIP2_LEVEL: level };
}

/** Every step's loss, and the images per second after the first step. */
function fit(backend) {
  const output = mkdtempSync(join(tmpdir(), 'blip2-backends-'));
  try {
    const [name, level] = backend.split(':');
    const args = [CLI, ...command(name, output)];
    const env = { ...process.env, ...environment(level) };
    execFileSync(process.execPath, args, { cwd: ROOT, env, stdio: ['ignore', 'ignore', 'pipe'] });
    const steps = readFileSync(join(output, 'run', 'metrics.jsonl'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
      .filter(({ loss }) => loss !== undefined);
    if (steps.length !== Number(options.steps))
      throw new Error(`expected ${options.steps} losses in metrics.jsonl, found ${steps.length}`);
    const seconds = steps.at(-1).seconds - steps[0].seconds;
    return {
      losses: steps.map(({ loss }) => loss),
      imagesPerSecond: ((steps.length - 1) * options.batch) / seconds,
    };
  } catch (error) {
    const printed = error.stderr?.toString().trim().split('\n').slice(-3).join(' | ');
    throw new Error(`${backend}: ${printed || error.message}`);
  } finally {
    rmSync(output, { recursive: true, force: true });
  }
}

/** Relative, over all steps. */
function largestDifference(losses, reference) {
  return Math.max(...losses.map((loss, i) => Math.abs(loss - reference[i]) / Math.abs(reference[i])));
}

/** The backends that do not start on this machine, each with the reason, from `doctor`. */
function missing() {
  const doctor = execFileSync(process.execPath, [CLI, 'doctor', '--json'], { cwd: ROOT, encoding: 'utf8' });
  return new Map(
    JSON.parse(doctor)
      .backends.filter(({ ok }) => !ok)
      .map(({ name, why }) => [name, why]),
  );
}

function main() {
  if (options.help) return console.log(HELP);
  if (!existsSync(CLI)) throw new Error(`${CLI} is missing: npx nx run-many -t build`);
  const skippable = options.optional.split(',');
  const absent = options.optional ? missing() : new Map();
  let first;
  let apart = 0;
  console.log(
    `| backend | images/s | loss at step 1 | loss at step ${options.steps} | largest difference at any step |\n| --- | ---: | ---: | ---: | ---: |`,
  );
  for (const backend of options.backends.split(',')) {
    if (absent.has(backend) && skippable.includes(backend)) {
      console.log(`| ${backend} | SKIPPED: ${absent.get(backend)} | | | |`);
      continue;
    }
    const { losses, imagesPerSecond } = fit(backend);
    first ??= losses;
    const difference = largestDifference(losses, first);
    if (!(difference <= Number(options.tolerance))) apart++;
    const [begin, end] = [losses[0], losses.at(-1)].map((loss) => loss.toFixed(6));
    console.log(
      `| ${backend} | ${imagesPerSecond.toFixed(1)} | ${begin} | ${end} | ${difference.toExponential(1)} |`,
    );
  }
  if (apart > 0) throw new Error(`losses of ${apart} differ by more than ${options.tolerance}, relatively`);
}

try {
  main();
} catch (error) {
  console.error(`backends: ${error.message}`);
  process.exitCode = 1;
}

/** Checks before a measurement that both sides compute the same on a tiny checkpoint in float32. */
import { join } from 'node:path';
import { loadConfig } from '@blip2/blip2/node';
import { pythonScript, captionOf, stepOf } from './sides';
import type { Sides } from './sides';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { syntheticBatch, writeWork } from './work';
import type { WorkBatch } from './work';

const run = promisify(execFile);
const TOLERANCE = 1e-4;

/** Makes a tiny checkpoint with an adapter. */
export async function tinyCheckpoint(
  python: string,
  dir: string,
): Promise<{ model: string; adapter: string }> {
  const [model, adapter] = [join(dir, 'tiny'), join(dir, 'tiny-adapter')];
  const args = [model, '--size', 'tiny', '--dtype', 'float32', '--shard-bytes', '4e5', '--adapter', adapter];
  await run(python, [pythonScript('write_checkpoint.py'), ...args]);
  return { model, adapter };
}

/**
 * Compares the losses of several updates from the same weights, and greedy and beam captions.
 * @throws Error if a loss differs by more than 1e-4 or a token differs: the sides do different work, so ratios are meaningless
 */
export async function checkSameWork(sides: Sides, dir: string): Promise<string> {
  const { model, adapter } = await tinyCheckpoint(sides.python, dir);
  const config = await loadConfig(model);
  const work = join(dir, 'check.safetensors');
  const batches = [5, 9].map((text, i) => syntheticBatch(config, { batch: 3, text, seed: i + 1 }));
  batches.push(syntheticBatch(config, { batch: 4, captions: 2, text: 6, seed: 3 }));
  await writeWork(work, batches.map(shortenSecondRow));
  const base = { model, work, steps: 4, precision: 'float32', lr: 1e-3, noDropout: true } as const;
  const gaps: number[] = [];
  for (const preset of ['lora', 'qformer'] as const)
    for (const features of ['none', 'ready'] as const) {
      const both = { ...base, preset, features, adapter: preset === 'lora' ? adapter : undefined };
      const ours = await stepOf(sides, 'ours', both);
      const baseline = await stepOf(sides, 'pytorch', both);
      gaps.push(compareLosses(`${preset}, features ${features}`, ours.losses, baseline.losses));
      if (ours.trainable !== baseline.trainable)
        throw new Error(`${preset}: ours trains ${ours.trainable} numbers, PyTorch ${baseline.trainable}`);
    }
  await checkCaptions(sides, { model, dir });
  return `same losses within ${Math.max(...gaps).toExponential(1)} (${4 * base.steps} updates) and the same captions`;
}

/** Rows of unequal length: the second one loses its last two tokens to padding. */
function shortenSecondRow(batch: WorkBatch): WorkBatch {
  const end = 2 * batch.shape[1];
  batch.attention_mask.fill(0, end - 2, end);
  batch.labels?.fill(-100, end - 2, end);
  return batch;
}

/** The largest difference. @throws Error if it is above the tolerance, or there is nothing to compare */
export function compareLosses(what: string, ours: readonly number[], baseline: readonly number[]): number {
  if (ours.length === 0 || ours.length !== baseline.length)
    throw new Error(`${what}: expected as many losses as PyTorch, ${baseline.length}, found ${ours.length}`);
  const gap = Math.max(...ours.map((loss, i) => Math.abs(loss - baseline[i])));
  if (gap <= TOLERANCE) return gap;
  throw new Error(
    `${what}: the sides do different work, losses differ by ${gap} (at most ${TOLERANCE}): ` +
      `${ours.join(', ')} here, ${baseline.join(', ')} in PyTorch`,
  );
}

async function checkCaptions(sides: Sides, { model, dir }: { model: string; dir: string }): Promise<void> {
  const config = await loadConfig(model);
  const work = join(dir, 'check-captions.safetensors');
  await writeWork(work, [syntheticBatch(config, { batch: 2, text: 3, seed: 3, prompt: true })]);
  for (const beams of [1, 5]) {
    const run = { model, work, beams, newTokens: 12, repeat: 1, precision: 'float32' } as const;
    const ours = await captionOf(sides, 'ours', run);
    const baseline = await captionOf(sides, 'pytorch', run);
    if (JSON.stringify(ours.ids) !== JSON.stringify(baseline.ids))
      throw new Error(
        `captions with ${beams} beams differ: ${JSON.stringify(ours.ids)} here, ${JSON.stringify(baseline.ids)} in PyTorch`,
      );
  }
}

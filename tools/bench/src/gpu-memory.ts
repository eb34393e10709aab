/** Bytes of a GPU's buffers while a model is loaded, its features are computed, and it is trained: counted by a GPU that computes nothing. */
import { join } from 'node:path';
import { loadConfig } from '@blip2/blip2/node';
import type { Precision } from '@blip2/nn';
import { stepOf } from './sides';
import type { StepPreset } from './step';
import { markdownTable } from './table';
import { syntheticBatch, writeWork } from './work';

export interface GpuMemoryOptions {
  /** Folder of work files. */
  dir: string;
  model: string;
  /** The compiled bin.js. */
  bin: string;
  precisions: readonly Precision[];
  presets: readonly StepPreset[];
  batches: readonly number[];
  texts: readonly number[];
  say(text: string): void;
}

const HEAD = [
  'preset, precision',
  'batch',
  'tokens',
  'loading, GB',
  'features, GB',
  'step, GB',
  'step with pictures, GB',
];

/** A row for each combination: the most bytes in each phase, with cached features, and of a step that computes all parts. */
export async function gpuMemoryTable(o: GpuMemoryOptions): Promise<string> {
  const config = await loadConfig(o.model);
  const rows: string[][] = [];
  for (const batch of o.batches)
    for (const text of o.texts) {
      const work = join(o.dir, `memory-${batch}-${text}.safetensors`);
      await writeWork(work, [syntheticBatch(config, { batch, text, seed: 1 })]);
      for (const preset of o.presets)
        for (const precision of o.precisions) {
          const [ready, none] = [await phases('ready'), await phases('none')];
          const cells = [...ready, none[2]].map((bytes) => (bytes / 1e9).toFixed(2));
          rows.push([`${preset}, ${precision}`, String(batch), String(text), ...cells]);

          async function phases(features: 'ready' | 'none') {
            const run = { model: o.model, work, preset, steps: 2, features, precision };
            const sides = { python: '', threads: 2, attention: 'sdpa', device: 'cpu' } as const;
            const report = await stepOf(
              { ...sides, backend: 'counting', bin: o.bin, say: o.say },
              'ours',
              run,
            );
            return report.gpu_phases!;
          }
        }
    }
  return markdownTable(HEAD, rows);
}

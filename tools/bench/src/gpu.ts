/** The comparison on a GPU: conformance first, then the rates of matmul at each level, then steps and captions beside PyTorch on CUDA. */
import { tileRates } from '@blip2/backend-webgpu';
import type { TileRate } from '@blip2/backend-webgpu';
import { registerWebGpuInNode } from '@blip2/backend-webgpu/node';
import { conformanceChecks } from '@blip2/nn/conformance';
import { useBackend } from '@blip2/nn/node';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { checkSameWork } from './check';
import { fullTables } from './full';
import type { FullOptions } from './full';
import { writeRandomModel } from './random-model';
import type { Sides } from './sides';
import { digits } from './table';

/** Largest difference from float32 with operands that are rounded to bfloat16. */
const TOLERANCE = 0.02;

/**
 * Prints the adapter, its matmul rates, and the tables: ours alone if Python cannot run PyTorch's side, and of a model with random weights
 * if none is given. @throws Error if one check of the conformance suite fails
 */
export async function gpuTables(
  sides: Sides,
  { model, ...o }: Omit<FullOptions, 'model'> & { model?: string },
): Promise<void> {
  const { tried } = await useBackend('webgpu');
  const { why } = tried.at(-1)!;
  console.log(why);
  for (const precision of ['float32', 'bfloat16'] as const) {
    await useBackend('webgpu', { precision });
    const checks = conformanceChecks(precision === 'float32' ? undefined : TOLERANCE);
    for (const { name, run } of checks) {
      sides.say(`conformance in ${precision}: ${name}`);
      await run();
    }
    console.log(`Conformance in ${precision}: ${checks.length} checks passed.`);
  }
  const { adapter } = await registerWebGpuInNode({ software: true }); // the report of the one that is open
  if (!adapter?.software) console.log(await rateLines());
  const rivals = (await hasPyTorch(sides.python)) ? o.rivals : [];
  if (rivals.length > 0) sides.say(await checkSameWork(sides, o.dir));
  else console.log(`Ours alone: ${sides.python} has no torch, transformers and peft.`);
  await fullTables(sides, { ...o, rivals, model: model ?? (await randomModel(sides, o.dir)) });
}

async function hasPyTorch(python: string): Promise<boolean> {
  const imports = promisify(execFile)(python, ['-c', 'import torch, transformers, peft']);
  return imports.then(
    () => true,
    () => false,
  );
}

async function randomModel({ say }: Sides, dir: string): Promise<string> {
  const to = join(dir, 'random-model');
  say(`writing random weights of blip2-opt-2.7b, 7.5 GB, to ${to}`);
  await writeRandomModel(to);
  return to;
}

/** The best rate of each level, and that of the tile in use. */
async function rateLines(): Promise<string> {
  const rates = await tileRates();
  const levels = [...new Set(rates.map(({ level }) => level))];
  const line = ({ tile, gflops, used }: TileRate) =>
    `  ${tile}: ${digits(gflops)} GFLOP/s${used ? ' (in use)' : ''}`;
  return levels
    .flatMap((level) => {
      const own = rates.filter((rate) => rate.level === level).sort((a, b) => b.gflops - a.gflops);
      return [`Matmul 1024 × 2560 × 2560, ${level}: ${digits(own[0].gflops)} GFLOP/s`, ...own.map(line)];
    })
    .join('\n');
}

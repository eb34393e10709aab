/** The comparison on a GPU: conformance first, then the adapter's best matmul, then steps and captions beside PyTorch on CUDA. */
import { dispose, linear, normal, rngKey, tensor, tidy } from '@blip2/nn';
import type { Tensor2D } from '@blip2/nn';
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

/** Rows and columns of the products: a training step's, and one that fills any GPU. */
const SIDES = [512, 2560, 4096];

/**
 * Prints the adapter, its matmul rates, and the tables: ours alone if Python cannot run PyTorch's side, and of a model with random weights
 * if none is given. @throws Error if one check of the conformance suite fails
 */
export async function gpuTables(
  sides: Sides,
  { model, ...o }: Omit<FullOptions, 'model'> & { model?: string },
): Promise<void> {
  const { tried } = await useBackend('webgpu');
  console.log(`${tried.at(-1)!.why}`);
  const checks = conformanceChecks();
  for (const { name, run } of checks) {
    sides.say(`conformance: ${name}`);
    await run();
  }
  await useBackend('webgpu');
  console.log(`Conformance: ${checks.length} checks passed.`);
  for (const side of SIDES.slice(0, tried.at(-1)!.why.includes('processor') ? 1 : undefined))
    console.log(`Matmul ${side} × ${side} × ${side}, float32: ${digits(await rate(side))} GFLOP/s`);
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

/** GFLOP/s of a product, the best of those that run within two seconds. */
async function rate(side: number): Promise<number> {
  const values = normal(rngKey(0), side * side);
  const [x, weight] = [tensor(values, [side, side]), tensor<Tensor2D>(values, [side, side])];
  let best = 0;
  for (const begin = performance.now(); performance.now() - begin < 2000;) {
    const start = performance.now();
    const products = Array.from({ length: 8 }, () => tidy(() => linear({ weight }, x)));
    await products.at(-1)!.data();
    best = Math.max(best, (8 * 2 * side ** 3) / (performance.now() - start) / 1e6);
    dispose(products);
  }
  dispose([x, weight]);
  return best;
}

/** The comparison on a GPU: conformance first, then the adapter's best matmul, then steps and captions beside PyTorch on CUDA. */
import { dispose, linear, normal, rngKey, tensor, tidy } from '@blip2/nn';
import type { Tensor2D } from '@blip2/nn';
import { conformanceChecks } from '@blip2/nn/conformance';
import { useBackend } from '@blip2/nn/node';
import { checkSameWork } from './check';
import { fullTables } from './full';
import type { FullOptions } from './full';
import type { Sides } from './sides';
import { digits } from './table';

/** Rows and columns of the products: a training step's, and one that fills any GPU. */
const SIDES = [512, 2560, 4096];

/** Prints the adapter, its matmul rates, and the tables. @throws Error if one check of the conformance suite fails */
export async function gpuTables(sides: Sides, o: FullOptions): Promise<void> {
  const { tried } = await useBackend(sides.backend);
  console.log(`${tried.at(-1)!.why}`);
  const checks = conformanceChecks();
  for (const { name, run } of checks) {
    sides.say(`conformance: ${name}`);
    await run();
  }
  await useBackend(sides.backend);
  console.log(`Conformance: ${checks.length} checks passed.`);
  for (const side of SIDES.slice(0, tried.at(-1)!.why.includes('processor') ? 1 : undefined))
    console.log(`Matmul ${side} × ${side} × ${side}, float32: ${digits(await rate(side))} GFLOP/s`);
  sides.say(await checkSameWork(sides, o.dir));
  await fullTables(sides, o);
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

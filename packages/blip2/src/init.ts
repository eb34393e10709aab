/** A model with random weights, for training from scratch. */
import { fold, nest, normal, rngKey, tensor } from '@blip2/nn';
import type { Key, Tensor } from '@blip2/nn';
import type { Blip2Config } from './config';
import { blip2Weights } from './model';
import type { Blip2, Blip2Params } from './model';

const STD = 0.02;

/**
 * Random weights: normal(0, 0.02), biases 0, layer norms 1 and 0; the same seed gives the same model.
 * The queries are random too, as in LAVIS: transformers' zeros make all queries equal, and they stay equal in training.
 */
export function initModel(cfg: Blip2Config, seed: number): Blip2 {
  const key = rngKey(seed);
  const flat = new Map<string, Tensor>();
  for (const [name, shape] of blip2Weights(cfg))
    flat.set(name, tensor(initial(fold(key, name), name, shape), shape));
  return { config: cfg, params: nest(flat) as Blip2Params };
}

function initial(key: Key, name: string, shape: number[]): Float32Array {
  const size = shape.reduce((a, b) => a * b, 1);
  if (name.endsWith('.bias')) return new Float32Array(size);
  if (/norm\d?\.weight$/i.test(name)) return new Float32Array(size).fill(1);
  return normal(key, size).map((x) => x * STD);
}

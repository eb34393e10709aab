/** Operations of the tiny model during which allocations of the addon fail, one after the other. */
import { createHash } from 'node:crypto';
import type { Blip2, TokenBatch } from '@blip2/blip2';
import { adapterBase, generate, loss } from '@blip2/blip2';
import { loadFolder } from '@blip2/blip2/node';
import { dispose, flatten, tensor, tidy } from '@blip2/nn';
import type { Key, Tensor4D } from '@blip2/nn';
import { applyPreset, presetOf } from '@blip2/peft-lora';
import { createAdamW, disposeAdamW } from '../src/train/optimizer';
import type { TrainParts } from '../src/train/step';
import { trainStep } from '../src/train/step';
import { TINY_MODEL } from './tiny';

/** What `build.mjs --faults` adds to the addon. */
export interface FaultyAddon {
  failAllocation(n: number): void;
  allocations(): number;
  failedAllocations(): number;
}

export interface Outcome {
  allocations: number;
  /** allocations that were made to fail */
  failed: number;
  /** operations that ended in an exception, by its message */
  exceptions: Record<string, number>;
  /** operations that did without what they could not get (a thread of the pool), with the same bits */
  completed: number;
  /** why an operation gave other bits, or what else was wrong */
  wrong: string[];
}

const size = 32;
const IMAGE_TOKENS = [58, 58, 58, 58];
const batch = tokens([...IMAGE_TOKENS, 2, 5, 6, 7], [...IMAGE_TOKENS, 2, 8, 9, 5]);

function tokens(...rows: number[][]): TokenBatch & { labels: Int32Array } {
  const ids = rows.flat();
  return {
    shape: [rows.length, rows[0]!.length],
    input_ids: Int32Array.from(ids),
    attention_mask: new Int32Array(ids.length).fill(1),
    labels: Int32Array.from(ids, (id) => (id === IMAGE_TOKENS[0] ? -100 : id)),
  };
}

function pixels(): { pixel_values: Tensor4D } {
  const values = Float32Array.from({ length: 2 * 3 * size * size }, (_, i) => Math.sin(i));
  return { pixel_values: tensor<Tensor4D>(values, [2, 3, size, size]) };
}

const open = () => loadFolder(TINY_MODEL, { store_from: 1 });

async function load(): Promise<string> {
  const { params } = await open();
  try {
    return await digest(flatten(params));
  } finally {
    dispose(params);
  }
}

async function captioning(): Promise<() => Promise<string>> {
  const model = await open();
  return async () => {
    const image = pixels();
    try {
      const ids = await generate(model, image, batch, { max_new_tokens: 4, num_beams: 2 });
      return JSON.stringify(ids);
    } finally {
      dispose(image);
    }
  };
}

/** One update of LoRA, always from the same weights. */
async function training(): Promise<() => Promise<string>> {
  const base = await open();
  const lora = { r: 4, lora_alpha: 8, lora_dropout: 0.1 };
  const { params, trainables } = applyPreset(
    base.params,
    presetOf('lora+qformer'),
    lora,
    0,
    adapterBase(base.config),
  );
  const model: Blip2 = { ...base, params };
  const start = new Map<string, Float32Array>();
  for (const [name, variable] of trainables) start.set(name, (await variable.data()).slice() as Float32Array);
  return async () => {
    for (const [name, variable] of trainables)
      tidy(() => variable.assign(tensor(start.get(name)!, variable.shape)));
    const image = pixels();
    const options = {
      adam_beta1: 0.9,
      adam_beta2: 0.999,
      adam_epsilon: 1e-8,
      weight_decay: 0.1,
      max_grad_norm: 1,
    };
    const optimizer = createAdamW(trainables, options);
    const parts: TrainParts<typeof batch> = {
      trainables,
      optimizer,
      loss: (given: typeof batch, key: Key) =>
        loss(model, image, given, { dropout: { language_model: key, qformer: key } }),
      size: () => ({ tokens: 10, images: 2 }),
      schedule: () => 1,
      batches: async function* () {},
      batchesPerEpoch: 1,
    };
    try {
      const result = await trainStep(parts, [batch], { seed: 1, step: 0, lr: 1e-2 });
      return JSON.stringify(result) + (await digest(trainables));
    } finally {
      dispose(image);
      disposeAdamW(optimizer);
    }
  };
}

async function digest(tensors: Map<string, { data(): Promise<unknown> }>): Promise<string> {
  const hash = createHash('sha256');
  for (const [name, values] of tensors) hash.update(name).update((await values.data()) as Float32Array);
  return hash.digest('hex');
}

/** The operations by name. Each returns a digest of its results, always the same. */
export async function operations(): Promise<Record<string, () => Promise<string>>> {
  return { load, step: await training(), caption: await captioning() };
}

/**
 * Makes allocations fail, at most `most` of them, spread over all that `run` makes. After each, `run` must work and give the same bits.
 */
export async function failInTurn(
  addon: FaultyAddon,
  run: () => Promise<string>,
  most: number,
): Promise<Outcome> {
  const attempt = async (n: number) => {
    addon.failAllocation(n);
    const ended = await run().then(
      (bits) => ({ bits, error: undefined }),
      (error: Error) => ({ bits: undefined, error: error.message }),
    );
    return { ...ended, failed: addon.failedAllocations() > 0 };
  };
  const { bits: expected, error } = await attempt(0);
  if (expected === undefined) throw new Error(`without a failure: ${error}`);
  await attempt(0);
  const allocations = addon.allocations();
  const outcome: Outcome = { allocations, failed: 0, exceptions: {}, completed: 0, wrong: [] };
  const count = Math.min(allocations, most);
  for (let i = 0; i < count; i++) {
    const n = 1 + Math.floor((i * allocations) / count);
    const { bits, error, failed } = await attempt(n);
    if (failed) outcome.failed++;
    if (error !== undefined) outcome.exceptions[error] = (outcome.exceptions[error] ?? 0) + 1;
    else if (bits !== expected) outcome.wrong.push(`allocation ${n}: no exception, and other bits`);
    else if (failed) outcome.completed++;
    const again = await attempt(0);
    if (again.bits !== expected) outcome.wrong.push(`after allocation ${n}: ${again.error ?? 'other bits'}`);
  }
  return outcome;
}

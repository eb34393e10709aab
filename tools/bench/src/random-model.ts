/** A checkpoint of blip2-opt-2.7b's sizes with random weights, for a machine without one: 7.5 GB in bfloat16. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { blip2Weights, parseConfig } from '@blip2/blip2';
import { normal, rngKey } from '@blip2/nn';
import type { TensorToWrite } from '@blip2/weights';
import { writeFileAtomic, writeSharded } from '@blip2/weights/node';

/** Its `config.json`. */
export const RANDOM_CONFIG = {
  architectures: ['Blip2ForConditionalGeneration'],
  model_type: 'blip-2',
  dtype: 'bfloat16',
  image_token_index: 50265,
  num_query_tokens: 32,
  vision_config: {},
  qformer_config: { encoder_hidden_size: 1408 },
  text_config: {
    ...{ model_type: 'opt', hidden_size: 2560, word_embed_proj_dim: 2560, ffn_dim: 10240, vocab_size: 50304 },
    ...{
      num_hidden_layers: 32,
      num_attention_heads: 32,
      bos_token_id: 2,
      eos_token_id: 50118,
      pad_token_id: 1,
    },
  },
};

/** A prime, so that the rows of no matrix repeat in step with it. */
const POOL = 1_048_573;

/** Matrices and biases are N(0, 0.02), weights of norms 1. Every tensor reads the same numbers from another place on. */
export async function writeRandomModel(dir: string): Promise<void> {
  await mkdir(dir, { recursive: true });
  const pool = toBFloat16(normal(rngKey(0), POOL).map((x) => 0.02 * x));
  const tensors = blip2Weights(parseConfig(RANDOM_CONFIG)).map(([name, shape], i): TensorToWrite => {
    const count = shape.reduce((a, b) => a * b, 1);
    const isNorm = /norm.*\.weight$/i.test(name);
    return {
      name,
      dtype: 'BF16',
      shape,
      data: () => Promise.resolve(isNorm ? ones(count) : drawn(pool, count, i)),
    };
  });
  await writeSharded(dir, tensors);
  await writeFileAtomic(join(dir, 'config.json'), `${JSON.stringify(RANDOM_CONFIG, undefined, 2)}\n`);
}

const toBFloat16 = (values: Float32Array) =>
  Uint16Array.from(new Uint32Array(values.buffer), (bits) => bits >>> 16);

const ones = (count: number) => new Uint8Array(new Uint16Array(count).fill(0x3f80).buffer);

function drawn(pool: Uint16Array, count: number, seed: number): Uint8Array {
  const made = new Uint16Array(count);
  let from = (seed * 7919) % POOL;
  for (let at = 0; at < count; from = 0) {
    const part = pool.subarray(from, from + count - at);
    made.set(part, at);
    at += part.length;
  }
  return new Uint8Array(made.buffer);
}

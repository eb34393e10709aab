/** What the specs share: the fixture of tools/parity/make_peft_fixture.py, and blip2-opt-2.7b's table without its weights. */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { nest, normal, rngKey, tensor } from '@blip2/nn';
import type { Tensor } from '@blip2/nn';
import type { WeightTable } from '@blip2/weights';
import { openWeights } from '@blip2/weights/node';
import type { AdapterBase } from '../src/ties';

/** What blip2's `adapterBase` gives for the fixture and for blip2-opt-2.7b. */
export const BASE: AdapterBase = {
  ties: [
    {
      tensor: 'language_model.model.decoder.embed_tokens.weight',
      alias: 'language_model.lm_head.weight',
    },
  ],
  lora_targets: ['q_proj', 'k_proj', 'v_proj', 'out_proj'],
};

export const fixture = (path: string) => fileURLToPath(new URL(`../fixtures/${path}`, import.meta.url));

/** All tensors of a safetensors file or model folder. */
export async function readTensors(
  path: string,
  select: (name: string) => boolean = () => true,
): Promise<Map<string, Tensor>> {
  const reader = await openWeights(path);
  const tensors = new Map<string, Tensor>();
  for (const { name, shape } of reader.entries.values()) {
    if (select(name)) tensors.set(name, tensor(await reader.readFloat32(name), shape));
  }
  await reader.close();
  return tensors;
}

/** The fixture's tiny BLIP-2 as a tree of frozen tensors. */
export async function baseTree(): Promise<object> {
  return nest(await readTensors(fixture('base'))) as object;
}

/** A tensor of normal random numbers. */
export function random(seed: number, ...shape: number[]): Tensor {
  const size = shape.reduce((a, b) => a * b, 1);
  return tensor(normal(rngKey(seed), size), shape);
}

export async function readJson(path: string): Promise<Record<string, unknown>> {
  return JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>;
}

/** The fields of PEFT's adapter_config.json that are on: what a written file has. */
export function settings(json: Record<string, unknown>): Record<string, unknown> {
  const kept = ['base_model_name_or_path', 'fan_in_fan_out', 'init_lora_weights', 'target_modules'];
  const constants = ['megatron_core', 'peft_version', 'qalora_group_size'];
  const isOn = (value: unknown) => !['null', 'false', '{}', '[]'].includes(JSON.stringify(value));
  const fields = Object.entries(json).filter(
    ([field, value]) => kept.includes(field) || (isOn(value) && !constants.includes(field)),
  );
  return Object.fromEntries(fields);
}

export async function valuesOf(x: Tensor): Promise<number[]> {
  return [...(await x.data())];
}

/** Names and shapes of Blip2ForConditionalGeneration at the size of blip2-opt-2.7b (224 px, vocabulary 50,304, tied). */
export function opt27bTable(): WeightTable {
  const table: WeightTable = [['query_tokens', [1, 32, 768]]];
  const put = (name: string, ...shape: number[]) => table.push([name, shape]);
  const lin = (name: string, out: number, width: number) => {
    put(`${name}.weight`, out, width);
    put(`${name}.bias`, out);
  };
  const norm = (name: string, size: number) => {
    put(`${name}.weight`, size);
    put(`${name}.bias`, size);
  };
  put('vision_model.embeddings.class_embedding', 1, 1, 1408);
  put('vision_model.embeddings.position_embedding', 1, 257, 1408);
  put('vision_model.embeddings.patch_embedding.weight', 1408, 3, 14, 14);
  put('vision_model.embeddings.patch_embedding.bias', 1408);
  for (let i = 0; i < 39; i++) {
    const layer = `vision_model.encoder.layers.${i}`;
    lin(`${layer}.self_attn.qkv`, 4224, 1408);
    lin(`${layer}.self_attn.projection`, 1408, 1408);
    norm(`${layer}.layer_norm1`, 1408);
    norm(`${layer}.layer_norm2`, 1408);
    lin(`${layer}.mlp.fc1`, 6144, 1408);
    lin(`${layer}.mlp.fc2`, 1408, 6144);
  }
  norm('vision_model.post_layernorm', 1408);
  norm('qformer.layernorm', 768);
  for (let i = 0; i < 12; i++) {
    const layer = `qformer.encoder.layer.${i}`;
    for (const [block, width] of i % 2 === 0
      ? ([
          ['attention', 768],
          ['crossattention', 1408],
        ] as const)
      : ([['attention', 768]] as const)) {
      lin(`${layer}.${block}.attention.query`, 768, 768);
      lin(`${layer}.${block}.attention.key`, 768, width);
      lin(`${layer}.${block}.attention.value`, 768, width);
      lin(`${layer}.${block}.output.dense`, 768, 768);
      norm(`${layer}.${block}.output.LayerNorm`, 768);
    }
    lin(`${layer}.intermediate_query.dense`, 3072, 768);
    lin(`${layer}.output_query.dense`, 768, 3072);
    norm(`${layer}.output_query.LayerNorm`, 768);
  }
  lin('language_projection', 2560, 768);
  const decoder = 'language_model.model.decoder';
  put(`${decoder}.embed_tokens.weight`, 50304, 2560);
  put(`${decoder}.embed_positions.weight`, 2050, 2560);
  norm(`${decoder}.final_layer_norm`, 2560);
  for (let i = 0; i < 32; i++) {
    const layer = `${decoder}.layers.${i}`;
    for (const name of ['k_proj', 'v_proj', 'q_proj', 'out_proj'])
      lin(`${layer}.self_attn.${name}`, 2560, 2560);
    norm(`${layer}.self_attn_layer_norm`, 2560);
    lin(`${layer}.fc1`, 10240, 2560);
    lin(`${layer}.fc2`, 2560, 10240);
    norm(`${layer}.final_layer_norm`, 2560);
  }
  return table;
}

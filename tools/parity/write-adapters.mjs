// Writes an adapter of every kind, with changed weights, and the logits computed with it:
//   npx nx run-many -t build
//   node tools/parity/write-adapters.mjs OUT && python tools/parity/check_adapter.py OUT
// The base is the tiny random model of packages/peft-lora/fixtures.
import { cp, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { adapterBase, forward } from '@blip2/blip2';
import { loadFolder } from '@blip2/blip2/node';
import { add, normal, rngKey, scale, tensor, tidy } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { addLora, applyAdapter, applyPreset, presetLora, trainable, weightedAdapter } from '@blip2/peft-lora';
import { loadAdapter, saveAdapter } from '@blip2/peft-lora/node';
import { openWeights, writeSafetensors } from '@blip2/weights/node';

const [out] = process.argv.slice(2);
if (!out) throw new Error('usage: write-adapters.mjs OUT');
const fixtures = fileURLToPath(new URL('../../packages/peft-lora/fixtures/', import.meta.url));
const OPT = ['q_proj', 'k_proj', 'v_proj', 'out_proj'];
const configs = {
  list: { r: 4, lora_alpha: 6, target_modules: OPT, lora_dropout: 0.1 },
  regex: { r: 3, target_modules: '.*\\.layers\\.\\d+\\.(self_attn\\.(qkv|v_proj)|mlp\\.fc1|fc2)' },
  all_linear: { r: 2, target_modules: 'all-linear' },
  exclude: { r: 2, target_modules: ['fc1', 'q_proj'], exclude_modules: ['mlp.fc1'] },
  layers: {
    r: 2,
    target_modules: ['q_proj', 'query'],
    layers_to_transform: [1],
    layers_pattern: ['layers', 'layer'],
  },
  patterns: {
    r: 2,
    target_modules: OPT,
    rank_pattern: { q_proj: 5 },
    alpha_pattern: { 'layers\\.0.*v_proj': 9 },
  },
  rslora: { r: 4, lora_alpha: 6, target_modules: OPT, use_rslora: true },
  dora: { r: 4, lora_alpha: 6, target_modules: [...OPT, 'dense'], use_dora: true },
  dora_rslora: { r: 4, target_modules: ['fc1', 'fc2'], use_dora: true, use_rslora: true },
  lora_bias: { r: 2, target_modules: ['v_proj', 'query'], lora_bias: true },
  bias_all: { r: 2, target_modules: ['v_proj', 'query'], bias: 'all' },
  bias_lora_only: { r: 2, target_modules: ['v_proj', 'query'], bias: 'lora_only' },
  whole_modules: { r: 2, target_modules: OPT, modules_to_save: ['language_projection', 'layernorm'] },
  embeddings: { r: 2, target_modules: OPT, modules_to_save: ['embed_tokens'] },
  head: { r: 2, target_modules: OPT, modules_to_save: ['lm_head'] },
  both: { r: 2, target_modules: OPT, modules_to_save: ['embed_tokens', 'lm_head'] },
  head_target: { r: 2, target_modules: ['lm_head', 'q_proj'] },
  gaussian: { r: 2, target_modules: OPT, init_lora_weights: 'gaussian' },
  orthogonal: { r: 2, target_modules: OPT, init_lora_weights: 'orthogonal' },
  random: { r: 2, target_modules: OPT, init_lora_weights: false },
};
const presets = ['lora', 'qformer', 'qformer-projection', 'lora+qformer'];
const tied = { lora: configs.list, patterns: ['embed_tokens'] };

await useBackend('auto');
const model = await loadFolder(join(fixtures, 'base'));
const base = adapterBase(model.config);
const reader = await openWeights(join(fixtures, 'golden.safetensors'));
const batch = { shape: [...reader.entries.get('input_ids').shape] };
for (const name of ['input_ids', 'attention_mask'])
  batch[name] = Int32Array.from(await reader.readFloat32(name));
const pixels = {
  data: await reader.readFloat32('pixel_values'),
  shape: [...reader.entries.get('pixel_values').shape],
};
const pixel_values = tensor(pixels.data, pixels.shape);
await reader.close();

const integers = (name) => ({ name, dtype: 'I64', shape: batch.shape, data: batch[name] });
const tensors = [
  { name: 'pixel_values', dtype: 'F32', ...pixels },
  integers('input_ids'),
  integers('attention_mask'),
];

async function write(name, params, config) {
  let seed = 1;
  for (const leaf of trainable(params).values()) {
    const step = tensor(normal(rngKey(seed++), leaf.size), leaf.shape);
    leaf.assign(tidy(() => add(leaf, scale(step, 0.2))));
  }
  await saveAdapter(join(out, name), params, config, base.ties);
  const { logits } = forward({ ...model, params }, { pixel_values }, batch);
  tensors.push({ name, dtype: 'F32', shape: logits.shape, data: await logits.data() });
}

await mkdir(out, { recursive: true });
await cp(join(fixtures, 'base'), join(out, 'base'), { recursive: true });
for (const [name, config] of Object.entries(configs))
  await write(name, addLora(model.params, config, 1, base.ties).tree, config);
for (const preset of presets)
  await write(
    `preset ${preset}`,
    applyPreset(model.params, preset, { r: 2 }, 1, base),
    presetLora(preset, { r: 2 }, base),
  );
await write('tied embeddings', applyPreset(model.params, tied, {}, 1, base), configs.list);
const pair = [await loadAdapter(join(out, 'list')), await loadAdapter(join(out, 'rslora'))];
for (const combination_type of ['linear', 'cat', 'svd']) {
  const mixed = weightedAdapter(pair, { weights: [0.7, -0.4], combination_type });
  await write(`weighted ${combination_type}`, applyAdapter(model.params, mixed), mixed.config);
}
await writeSafetensors(join(out, 'case.safetensors'), tensors);
console.log(`${out}: ${tensors.length - 3} adapters`);

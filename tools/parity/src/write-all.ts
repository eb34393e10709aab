/** Writes models and adapters of every kind with their logits; check_all.py loads them in Python. */
import { mkdir, rm } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { adapterBase, forward, initModel } from '@blip2/blip2';
import type { Blip2, TokenBatch } from '@blip2/blip2';
import { loadFolder, saveModel } from '@blip2/blip2/node';
import type { SaveOptions } from '@blip2/blip2/node';
import { add, fold, normal, rngKey, scale, tensor, tidy } from '@blip2/nn';
import type { Tensor } from '@blip2/nn';
import { applyAdapter, applyPreset, mergeLora, weightedAdapter } from '@blip2/peft-lora';
import type { LoraConfig, Preset, PresetName } from '@blip2/peft-lora';
import { loadAdapter, saveAdapter } from '@blip2/peft-lora/node';
import { writeFileAtomic, writeSafetensors } from '@blip2/weights/node';
import { CaseError, readCase } from './case-file';
import type { Case } from './case-file';
import { batchOf } from './inputs';
import type { Batch } from './inputs';

/** An entry of the manifest that check_all.py reads. Paths are relative to the manifest. */
interface Written {
  name: string;
  kind: 'model' | 'adapter';
  folder: string;
  /** Base model of an adapter. */
  base?: string;
  /** Tensors: pixel_values (not for text alone), input_ids, attention_mask, logits; labels of a seq2seq model; qformer_… of InstructBLIP. */
  expected: string;
}

const OPT = ['q_proj', 'k_proj', 'v_proj', 'out_proj'];
const LIST: Partial<LoraConfig> = { r: 4, lora_alpha: 6, target_modules: OPT, lora_dropout: 0.1 };

/** LoRA with every option that changes results or files. */
const LORA: Record<string, Partial<LoraConfig>> = {
  list: LIST,
  regex: { r: 3, target_modules: '.*\\.layers\\.\\d+\\.(self_attn\\.(qkv|v_proj)|mlp\\.fc1|fc2)' },
  'all-linear': { r: 2, target_modules: 'all-linear' },
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
  'dora-rslora': { r: 4, target_modules: ['fc1', 'fc2'], use_dora: true, use_rslora: true },
  'lora-bias': { r: 2, target_modules: ['v_proj', 'query'], lora_bias: true },
  'bias-all': { r: 2, target_modules: ['v_proj', 'query'], bias: 'all' },
  'bias-lora-only': { r: 2, target_modules: ['v_proj', 'query'], bias: 'lora_only' },
  'whole-modules': { r: 2, target_modules: OPT, modules_to_save: ['language_projection', 'layernorm'] },
  embeddings: { r: 2, target_modules: OPT, modules_to_save: ['embed_tokens'] },
  head: { r: 2, target_modules: OPT, modules_to_save: ['lm_head'] },
  both: { r: 2, target_modules: OPT, modules_to_save: ['embed_tokens', 'lm_head'] },
  'head-target': { r: 2, target_modules: ['lm_head', 'q_proj'] },
  gaussian: { r: 2, target_modules: OPT, init_lora_weights: 'gaussian' },
  orthogonal: { r: 2, target_modules: OPT, init_lora_weights: 'orthogonal' },
  random: { r: 2, target_modules: OPT, init_lora_weights: false },
};

/** Trainable sets: each LoRA alone, the named presets, and LoRA with trained embeddings. */
const ADAPTERS: Record<string, PresetName | Preset> = {
  ...Object.fromEntries(Object.entries(LORA).map(([name, lora]) => [name, { lora, patterns: [] }])),
  ...Object.fromEntries(
    (['lora', 'qformer', 'qformer-projection', 'lora+qformer'] as const).map((name) => [
      `preset-${name}`,
      name,
    ]),
  ),
  'tied-embeddings': { lora: LIST, patterns: ['embed_tokens'] },
};

const T5: Partial<LoraConfig> = { r: 4, lora_alpha: 6, target_modules: ['q', 'v'] };
const T5_ADAPTERS: Record<string, PresetName | Preset> = {
  't5-preset-lora': 'lora',
  't5-preset-lora+qformer': 'lora+qformer',
  't5-regex': { lora: { r: 2, target_modules: '.*decoder.*\\.(k|wi_1|wo)' }, patterns: [] },
  't5-all-linear': { lora: { r: 2, target_modules: 'all-linear' }, patterns: [] },
  't5-dora': { lora: { ...T5, use_dora: true }, patterns: [] },
  't5-layers': { lora: { ...T5, layers_to_transform: [1], layers_pattern: ['block'] }, patterns: [] },
  't5-head': { lora: { ...T5, modules_to_save: ['lm_head'] }, patterns: [] },
  't5-head-target': { lora: { r: 2, target_modules: ['lm_head', 'o'] }, patterns: [] },
  't5-embeddings': { lora: { ...T5, modules_to_save: ['shared'] }, patterns: [] },
  't5-position-bias': { lora: { ...T5, modules_to_save: ['relative_attention_bias'] }, patterns: [] },
};

const INSTRUCTBLIP_ADAPTERS: Record<string, PresetName | Preset> = {
  'instructblip-preset-lora': 'lora',
  'instructblip-preset-qformer': 'qformer',
  'instructblip-preset-lora+qformer': 'lora+qformer',
  'instructblip-all-linear': { lora: { r: 2, target_modules: 'all-linear' }, patterns: [] },
  'instructblip-qformer-lora': { lora: { r: 2, target_modules: ['query', 'dense'] }, patterns: [] },
  'instructblip-words': { lora: { ...T5, modules_to_save: ['word_embeddings'] }, patterns: [] },
};

/** Writes models and adapters into `root`, which is emptied, with manifest.json. */
export async function writeAll(root: string, cases: readonly string[]): Promise<void> {
  await rm(root, { recursive: true, force: true });
  await mkdir(root, { recursive: true });
  const named = async (name: string) => {
    const folder = cases.find((at) => at.endsWith(name));
    if (!folder) throw new CaseError(`--write: expected a case ${name}, found none`);
    return await readCase(folder);
  };
  const tiny = await named('opt-pre-norm');
  const written = [
    ...(await writeModels(root, tiny, named)),
    ...(await writeAdapters(root, tiny, ADAPTERS)),
    ...(await writeAdapters(root, await named('/t5'), T5_ADAPTERS)),
    ...(await writeAdapters(root, await named('/instructblip'), INSTRUCTBLIP_ADAPTERS)),
  ];
  await writeFileAtomic(join(root, 'manifest.json'), `${JSON.stringify(written, null, 1)}\n`);
}

async function writeModels(
  root: string,
  tiny: Case,
  named: (name: string) => Promise<Case>,
): Promise<Written[]> {
  const written: Written[] = [];
  const put = async (name: string, model: Blip2, batch: Batch, o: SaveOptions = {}) => {
    await saveModel(model, join(root, name), o);
    // Weights stored in 16 bits are rounded, so the logits are computed from the saved folder.
    written.push(
      await expected(root, { name, kind: 'model', folder: name }, await loadFolder(join(root, name)), batch),
    );
  };
  const batch = await batchOf(tiny, 'right');
  const model = await loadFolder(tiny.model);
  const copyFrom = tiny.model;
  await put('float32', model, batch, { copyFrom });
  await put('sharded', model, batch, { copyFrom, maxShardBytes: 60_000 });
  await put('float16', model, batch, { copyFrom, dtype: 'F16' });
  await put('bfloat16', model, batch, { copyFrom, dtype: 'BF16' });
  await put('initialised', initModel(model.config, 3), batch, { copyFrom });
  const adapter = await named('adapter');
  const adapted = applyAdapter(model.params, await loadAdapter(adapter.adapter!), adapterBase(model.config));
  await put('merged', { ...model, params: mergeLora(adapted) }, batch, { copyFrom });
  for (const [name, inputs] of [
    ['opt-post-norm', 'right'],
    ['opt-projected', 'left'],
    ['float16-sharded', 'right'],
    ['bfloat16-head-only', 'left'],
    ['/t5', 'right'],
    ['t5-tied', 'right'],
    ['/instructblip', 'right'],
    ['instructblip-float16', 'right'],
  ]) {
    const of = await named(name);
    await put(of.name, await loadFolder(of.model), await batchOf(of, inputs));
  }
  return written;
}

async function writeAdapters(root: string, tiny: Case, list: typeof ADAPTERS): Promise<Written[]> {
  const batch = await batchOf(tiny, 'right');
  const base = await loadFolder(tiny.model);
  const about = adapterBase(base.config);
  const written: Written[] = [];
  const put = async (name: string, params: Blip2['params'], config: LoraConfig | undefined) => {
    const folder = `adapter-${name}`;
    await saveAdapter(join(root, folder), params, config, about.ties);
    const what = { name: folder, kind: 'adapter', folder, base: relative(root, tiny.model) } as const;
    written.push(await expected(root, what, { ...base, params }, batch));
  };
  for (const [name, preset] of Object.entries(list)) {
    const { params, adapter, trainables } = applyPreset(base.params, preset, {}, 1, about);
    for (const [leaf, value] of trainables) {
      const noise = tensor(normal(fold(rngKey(9), leaf), value.size), value.shape);
      tidy(() => value.assign(add(value, scale(noise, 0.05)))); // a fresh adapter would change nothing
    }
    await put(name, params, adapter);
  }
  if (list !== ADAPTERS) return written;
  const pair = await Promise.all(
    ['list', 'rslora'].map((name) => loadAdapter(join(root, `adapter-${name}`))),
  );
  for (const combination_type of ['linear', 'cat', 'svd'] as const) {
    const mixed = weightedAdapter(pair, { weights: [0.7, -0.4], combination_type });
    await put(`weighted-${combination_type}`, applyAdapter(base.params, mixed, about), mixed.config);
  }
  return written;
}

/** Writes inputs and logits beside the model or adapter. */
async function expected(
  root: string,
  what: Omit<Written, 'expected'>,
  model: Blip2,
  { image, tokens }: Batch,
): Promise<Written> {
  const { logits } = forward(model, image, tokens);
  const [B, T] = tokens.shape;
  const integers = (rows: Omit<TokenBatch, 'instructions'>, prefix = '') =>
    (['input_ids', 'attention_mask'] as const).map(
      (name) => ({ name: prefix + name, dtype: 'I64', shape: rows.shape, data: rows[name] }) as const,
    );
  const pixels = image && 'pixel_values' in image ? image.pixel_values : undefined;
  const file = `${what.name}.expected.safetensors`;
  const floats = async (name: string, x: Tensor) =>
    ({ name, dtype: 'F32', shape: x.shape, data: (await x.data()) as Float32Array }) as const;
  await writeSafetensors(join(root, file), [
    ...(pixels ? [await floats('pixel_values', pixels)] : []),
    ...integers(tokens),
    ...(tokens.instructions ? integers(tokens.instructions, 'qformer_') : []),
    ...(logits.shape[1] === T
      ? []
      : [{ name: 'labels', dtype: 'I64', shape: [B, logits.shape[1]], data: tokens.labels! } as const]),
    await floats('logits', logits),
  ]);
  return { ...what, expected: file };
}

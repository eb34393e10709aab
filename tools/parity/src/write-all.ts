/** Writes models and adapters of every kind with their logits; check_all.py loads them in Python. */
import { mkdir, rm } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { adapterBase, forward, initModel } from '@blip2/blip2';
import type { Blip2 } from '@blip2/blip2';
import { loadFolder, saveModel } from '@blip2/blip2/node';
import type { SaveOptions } from '@blip2/blip2/node';
import { add, fold, normal, rngKey, scale, tensor, tidy } from '@blip2/nn';
import { applyAdapter, applyPreset, mergeLora } from '@blip2/peft-lora';
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
  /** Tensors: pixel_values (not for text alone), input_ids, attention_mask, logits. */
  expected: string;
}

/** Adapters of every form: a named or custom preset, with overrides of its LoRA. */
export const ADAPTERS: readonly { name: string; preset: PresetName | Preset; lora?: Partial<LoraConfig> }[] =
  [
    { name: 'lora', preset: 'lora', lora: { r: 4, lora_alpha: 8 } },
    {
      name: 'lora-rslora-patterns',
      preset: 'lora',
      lora: { r: 4, use_rslora: true, rank_pattern: { q_proj: 2 }, alpha_pattern: { v_proj: 3 } },
    },
    {
      name: 'lora-regex',
      preset: 'lora',
      lora: { r: 2, target_modules: '.*\\.layers\\.\\d+\\.(self_attn\\.qkv|mlp\\.fc1|fc2)' },
    },
    { name: 'lora-all-linear', preset: 'lora', lora: { r: 2, target_modules: 'all-linear' } },
    { name: 'lora-and-qformer', preset: 'lora+qformer', lora: { r: 4 } },
    { name: 'qformer', preset: 'qformer' },
    { name: 'qformer-projection', preset: 'qformer-projection' },
  ];

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
  const written = [...(await writeModels(root, tiny, named)), ...(await writeAdapters(root, tiny))];
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
  ]) {
    const of = await named(name);
    await put(name, await loadFolder(of.model), await batchOf(of, inputs));
  }
  return written;
}

async function writeAdapters(root: string, tiny: Case): Promise<Written[]> {
  const batch = await batchOf(tiny, 'right');
  const base = await loadFolder(tiny.model);
  const about = adapterBase(base.config);
  const written: Written[] = [];
  for (const { name, preset, lora } of ADAPTERS) {
    const { params, adapter, trainables } = applyPreset(base.params, preset, lora, 1, about);
    for (const [leaf, value] of trainables) {
      const noise = tensor(normal(fold(rngKey(9), leaf), value.size), value.shape);
      tidy(() => value.assign(add(value, scale(noise, 0.05)))); // a fresh adapter would change nothing
    }
    const folder = `adapter-${name}`;
    await saveAdapter(join(root, folder), params, adapter, about.ties);
    written.push(
      await expected(
        root,
        { name: folder, kind: 'adapter', folder, base: relative(root, tiny.model) },
        { ...base, params },
        batch,
      ),
    );
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
  const integers = (name: 'input_ids' | 'attention_mask') =>
    ({ name, dtype: 'I64', shape: tokens.shape, data: tokens[name] }) as const;
  const pixels = image && 'pixel_values' in image ? image.pixel_values : undefined;
  const file = `${what.name}.expected.safetensors`;
  await writeSafetensors(join(root, file), [
    ...(pixels
      ? [
          {
            name: 'pixel_values',
            dtype: 'F32' as const,
            shape: pixels.shape,
            data: (await pixels.data()) as Float32Array,
          },
        ]
      : []),
    integers('input_ids'),
    integers('attention_mask'),
    { name: 'logits', dtype: 'F32', shape: logits.shape, data: (await logits.data()) as Float32Array },
  ]);
  return { ...what, expected: file };
}

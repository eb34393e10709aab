/** Saving a model as a folder that transformers loads as its own. */
import { copyFile, mkdir, readdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { flatten } from '@blip2/nn';
import type { TensorToWrite } from '@blip2/weights';
import { writeFileAtomic, writeSharded } from '@blip2/weights/node';
import { ModelError, type Blip2Config } from './config';
import { blip2Weights, type Blip2 } from './model';

export interface SaveOptions {
  /** How floats are stored; F32 by default. */
  dtype?: 'F32' | 'F16' | 'BF16';
  /** A checkpoint folder whose tokenizer, preprocessor and generation files are copied beside the weights. */
  copyFrom?: string;
  /** Weights beyond this size are split into shards; 5 GB by default, as transformers does. */
  maxShardBytes?: number;
}

/** The files of a checkpoint folder that belong to text and image processing and to generation. */
const COMPANIONS =
  /^(tokenizer(_config)?\.json|special_tokens_map\.json|added_tokens\.json|vocab\.json|merges\.txt|(pre)?processor_config\.json|generation_config\.json|chat_template\.(json|jinja))$/;

const TORCH_DTYPE = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' };

/**
 * Writes `config.json` and `model.safetensors` (or shards with their index) in Hugging Face's layout, under the names of
 * the checkpoint, and copies companion files. Throws `ModelError` when the tree holds adapters (merge them first) or does not
 * fit its config; nothing is written then.
 */
export async function saveModel(model: Blip2, dir: string, o: SaveOptions = {}): Promise<void> {
  const { dtype = 'F32', maxShardBytes } = o;
  const tensors = tensorsToWrite(model, dtype);
  await mkdir(dir, { recursive: true });
  if (o.copyFrom && resolve(o.copyFrom) !== resolve(dir)) await copyCompanions(o.copyFrom, dir);
  await writeSharded(dir, tensors, { maxShardBytes, metadata: { format: 'pt' } });
  const config = configToWrite(model.config, TORCH_DTYPE[dtype]);
  await writeFileAtomic(join(dir, 'config.json'), `${configJson(config)}\n`);
}

function tensorsToWrite({ params, config }: Blip2, dtype: TensorToWrite['dtype']): TensorToWrite[] {
  const flat = flatten(params);
  const table = blip2Weights(config);
  const known = new Set(table.map(([name]) => name));
  const adapters = [...flat.keys()].filter((name) => name.includes('.lora.'));
  if (adapters.length > 0)
    throw new ModelError(
      `saveModel: expected plain weights, got ${adapters.length} adapter tensors (${adapters[0]}, …); ` +
        'merge the adapter into the model first, or save it on its own',
    );
  const problems = [...flat.keys()].filter((name) => !known.has(name)).map((name) => `unexpected ${name}`);
  for (const [name, shape] of table) {
    const found = flat.get(name)?.shape;
    if (found?.join() !== shape.join())
      problems.push(`${name}: expected [${shape}], found ${found ? `[${found}]` : 'none'}`);
  }
  if (problems.length > 0)
    throw new ModelError(`saveModel: the weights do not fit the config:\n${problems.join('\n')}`);
  return table.map(([name, shape]) => ({
    name,
    dtype,
    shape,
    data: async () => (await flat.get(name)!.data()) as Float32Array,
  }));
}

async function copyCompanions(from: string, to: string): Promise<void> {
  for (const name of await readdir(from))
    if (COMPANIONS.test(name)) await copyFile(join(from, name), join(to, name));
}

/** The config as it was read, with what a reader needs to find the classes and the dtype that was really written. */
function configToWrite({ raw, text_config }: Blip2Config, dtype: string): Record<string, unknown> {
  const part = (name: string, model_type: string) =>
    redtype({ model_type, ...(raw[name] as Record<string, unknown> | undefined) }, dtype);
  return {
    architectures: ['Blip2ForConditionalGeneration'],
    model_type: 'blip-2',
    dtype,
    ...redtype(raw, dtype),
    vision_config: part('vision_config', 'blip_2_vision_model'),
    qformer_config: part('qformer_config', 'blip_2_qformer'),
    text_config: part('text_config', text_config.model_type),
  };
}

/** transformers 5 says `dtype`, 4 said `torch_dtype`; sub-configs may repeat it. Whichever is there is corrected. */
function redtype(config: Record<string, unknown>, dtype: string): Record<string, unknown> {
  const names = ['dtype', 'torch_dtype'].filter(
    (name) => config[name] !== undefined && config[name] !== null,
  );
  return { ...config, ...Object.fromEntries(names.map((name) => [name, dtype])) };
}

/**
 * transformers 5 refuses `1` where its config class says float, and JavaScript cannot tell 1.0 from 1: whole values of the
 * fields that are floats there are written with a decimal point.
 */
function configJson(config: Record<string, unknown>): string {
  const text = JSON.stringify(config, null, 2);
  return text.replace(
    /^( *"(?:\w*(?:factor|range|_eps|_std|dropout|_prob|_penalty)|layerdrop|temperature|top_p)": -?\d+)(,?)$/gm,
    '$1.0$2',
  );
}

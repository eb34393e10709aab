/** The contents of a checkpoint that transformers loads; folder.ts writes it. */
import { flatten, isQuantised } from '@blip2/nn';
import { isRecord } from '@blip2/weights';
import type { TensorToWrite, WeightReader, WeightTable } from '@blip2/weights';
import { CLASSES, ModelError } from './config';
import type { Blip2Config } from './config';
import { blip2Weights } from './model';
import { withoutQuantisation } from './quantisation';
import type { Blip2 } from './model';

/** How floats are stored. */
export type SavedDType = 'F32' | 'F16' | 'BF16';

const TORCH_DTYPE = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' };

/** Whether any weight was rounded to int8. */
export const isRoundedModel = ({ params }: Blip2): boolean => [...flatten(params).values()].some(isQuantised);

/**
 * The tensors of a model under the names of its checkpoint, and the text of its `config.json`. Weights that were rounded to int8 are read
 * from `originals`.
 * @throws ModelError when the tree holds adapters (merge them first), does not fit its config, or has a rounded weight without original
 */
export function modelFiles(
  model: Blip2,
  dtype: SavedDType = 'F32',
  originals?: WeightReader,
): { tensors: TensorToWrite[]; config: string } {
  const tensors = tensorsToWrite(model.params, blip2Weights(model.config), dtype, originals);
  return { tensors, config: configText(configToWrite(model.config), dtype) };
}

/**
 * The tensors of a table of weights, as `modelFiles` gives them.
 * @throws ModelError as `modelFiles`
 */
export function tensorsToWrite(
  params: object,
  table: WeightTable,
  dtype: SavedDType = 'F32',
  originals?: WeightReader,
): TensorToWrite[] {
  const flat = flatten(params);
  const known = new Set(table.map(([name]) => name));
  const adapters = [...flat.keys()].filter((name) => name.includes('.lora.'));
  if (adapters.length > 0)
    throw new ModelError(
      `saveModel: expected plain weights, found ${adapters.length} adapter tensors (${adapters[0]}, …); ` +
        'merge the adapter into the model first, or save it on its own',
    );
  const problems = [...flat.keys()].filter((name) => !known.has(name)).map((name) => `unexpected ${name}`);
  for (const [name, shape] of table) {
    const found = flat.get(name)?.shape;
    if (found?.join() !== shape.join())
      problems.push(`${name}: expected [${shape}], found ${found ? `[${found}]` : 'none'}`);
    else if (isQuantised(flat.get(name)!) && originals?.entries.get(name)?.shape.join() !== shape.join())
      problems.push(`${name}: rounded to int8; expected its original weights (copyFrom)`);
  }
  if (problems.length > 0)
    throw new ModelError(`saveModel: the weights do not fit the config:\n${problems.join('\n')}`);
  return table.map(([name, shape]) => ({
    name,
    dtype,
    shape,
    data: async () => {
      const leaf = flat.get(name)!;
      return isQuantised(leaf) ? originals!.readFloat32(name) : ((await leaf.data()) as Float32Array);
    },
  }));
}

/** The config as it was read, with the class names. */
function configToWrite({ raw, model_type, text_config }: Blip2Config): Record<string, unknown> {
  const names = CLASSES[model_type];
  const part = (name: string, own: string) => ({
    model_type: own,
    ...withoutQuantisation((raw[name] ?? {}) as Record<string, unknown>),
  });
  return {
    architectures: [names.architecture],
    model_type,
    ...withoutQuantisation(raw),
    vision_config: part('vision_config', names.vision),
    qformer_config: part('qformer_config', names.qformer),
    text_config: part('text_config', text_config.model_type),
  };
}

/** The text of a config.json, with the dtype of the written tensors. */
export function configText(raw: Record<string, unknown>, dtype: SavedDType = 'F32'): string {
  const name = TORCH_DTYPE[dtype];
  const parts = Object.entries(raw).map(([key, value]) => [
    key,
    isRecord(value) && key.endsWith('_config') ? redtype(value, name) : value,
  ]);
  return `${configJson({ dtype: name, ...redtype(Object.fromEntries(parts) as typeof raw, name) })}\n`;
}

/** transformers 5 has `dtype`, 4 had `torch_dtype`, and sub-configs may repeat it. All that exist are corrected. */
function redtype(config: Record<string, unknown>, dtype: string): Record<string, unknown> {
  const names = ['dtype', 'torch_dtype'].filter(
    (name) => config[name] !== undefined && config[name] !== null,
  );
  return { ...config, ...Object.fromEntries(names.map((name) => [name, dtype])) };
}

/**
 * JSON in which whole values of float fields have a decimal point: transformers 5 rejects `1` for a float, and JavaScript
 * does not distinguish 1.0 from 1.
 */
export function configJson(config: Record<string, unknown>): string {
  const text = JSON.stringify(config, null, 2);
  return text.replace(
    /^( *"(?:\w*(?:factor|range|_eps|_std|dropout|_prob|_penalty|_threshold)|layerdrop|temperature|top_p)": -?\d+)(,?)$/gm,
    '$1.0$2',
  );
}

/** Checkpoint folders in Hugging Face's layout. */
import { join } from 'node:path';
import {
  copyFiles,
  MODEL_FOLDER,
  openWeights,
  readJsonFile,
  replaceFolder,
  writeFileAtomic,
  writeSharded,
} from '@blip2/weights/node';
import { ModelError, parseConfig } from './config';
import type { Blip2Config } from './config';
import { int8Weights } from './int8-file';
import type { Int8FileOptions } from './int8-file';
import { loadWeights } from './load';
import type { LoadOptions } from './load';
import type { Blip2 } from './model';
import { isRoundedModel, modelFiles } from './save';
import type { SavedDType } from './save';

export interface SaveOptions {
  /** How floats are stored; F32 by default. */
  dtype?: SavedDType;
  /**
   * A checkpoint folder whose tokenizer, preprocessor and generation files are copied beside the weights. Weights of the model that were
   * rounded to int8 are replaced by those of this folder.
   */
  copyFrom?: string;
  /** Weights beyond this size are split into shards; 5 GB by default, as transformers does. */
  maxShardBytes?: number;
}

/** Files of a checkpoint folder for text and image processing and for generation. */
const COMPANIONS =
  /^(tokenizer(_config)?\.json|special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt)|merges\.txt|(pre)?processor_config\.json|generation_config\.json|chat_template\.(json|jinja))$/;

/** Reads `config.json` of a checkpoint folder. @throws ModelError */
export const loadConfig = (dir: string): Promise<Blip2Config> => readConfig(dir, parseConfig);

/** Parses `config.json` of a folder; `parse` gets the path for its errors. @throws ModelError for a file that cannot be read */
export async function readConfig<C>(dir: string, parse: (json: unknown, where: string) => C): Promise<C> {
  const file = join(dir, 'config.json');
  let json: unknown;
  try {
    json = await readJsonFile(file);
  } catch (error) {
    throw new ModelError(`${file}: expected a model's config.json: ${(error as Error).message}`, {
      cause: error,
    });
  }
  return parse(json, file);
}

export interface FolderOptions extends LoadOptions {
  int8?: Int8FileOptions;
}

/**
 * Loads `config.json` and `model.safetensors` (or its shards) as `loadModel` does. With `int8.cache_dir`, rounded weights are kept in a file
 * there.
 * @throws ModelError for the config, and one WeightsError that names every missing, unexpected and misshapen tensor
 */
export async function loadFolder(dir: string, o: FolderOptions = {}): Promise<Blip2> {
  const config = await loadConfig(dir);
  const reader = await openWeights(dir);
  try {
    const { int8 } = o;
    return await loadWeights(config, reader, o, int8 && ((tied) => int8Weights(tied, reader, int8)));
  } finally {
    await reader.close();
  }
}

/**
 * Writes `config.json` and `model.safetensors` (or shards with their index) in Hugging Face's layout, under the names of
 * the checkpoint, and copies companion files. All are complete before the folder appears or, if it exists, before any file is
 * replaced; its other files are kept.
 * @throws ModelError when the tree holds adapters (merge them first) or does not fit its config; nothing is written then
 */
export async function saveModel(model: Blip2, dir: string, o: SaveOptions = {}): Promise<void> {
  await replaceFolder(dir, MODEL_FOLDER, (at) => writeModel(model, at, o));
}

/** Writes the files of `saveModel` into a folder, one after the other. @throws ModelError as `saveModel` */
export async function writeModel(model: Blip2, dir: string, o: SaveOptions = {}): Promise<void> {
  const originals =
    o.copyFrom !== undefined && isRoundedModel(model) ? await openWeights(o.copyFrom) : undefined;
  try {
    const { tensors, config } = modelFiles(model, o.dtype, originals);
    if (o.copyFrom) await copyCompanions(o.copyFrom, dir);
    await writeSharded(dir, tensors, { maxShardBytes: o.maxShardBytes });
    await writeFileAtomic(join(dir, 'config.json'), config);
  } finally {
    await originals?.close();
  }
}

/** Copies the files of a checkpoint for text, pictures and generation. */
export const copyCompanions = (from: string, to: string): Promise<void> => copyFiles(from, to, COMPANIONS);

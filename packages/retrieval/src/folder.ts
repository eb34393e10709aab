/** Checkpoint folders in Hugging Face's layout. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { configText, loadTable, tensorsToWrite } from '@blip2/blip2';
import type { TableOptions } from '@blip2/blip2';
import { copyCompanions, readConfig } from '@blip2/blip2/node';
import { nest } from '@blip2/nn';
import { MODEL_FOLDER, openWeights, replaceFolder, writeFileAtomic, writeSharded } from '@blip2/weights/node';
import { isRetrievalConfig, parseRetrievalConfig } from './config';
import type { RetrievalConfig } from './config';
import { retrievalWeights } from './model';
import type { RetrievalModel, RetrievalParams } from './model';

/** Whether a folder has a model for retrieval. One without config.json is reported by whoever opens it. */
export function isRetrievalFolder(dir: string): boolean {
  const file = join(dir, 'config.json');
  try {
    return existsSync(file) && isRetrievalConfig(JSON.parse(readFileSync(file, 'utf8')));
  } catch {
    return false;
  }
}

/** Reads `config.json` of a folder. @throws ModelError */
export const loadRetrievalConfig = (dir: string): Promise<RetrievalConfig> =>
  readConfig(dir, parseRetrievalConfig);

/**
 * Loads `config.json` and `model.safetensors` (or its shards). Large matrices keep their encoding in memory, as with `loadModel` of
 * @blip2/blip2.
 * @throws ModelError for the config, and one WeightsError that names every missing, unexpected and misshapen tensor
 */
export async function loadRetrievalModel(
  dir: string,
  o: Pick<TableOptions, 'onProgress' | 'store_from'> = {},
): Promise<RetrievalModel> {
  const config = await loadRetrievalConfig(dir);
  const reader = await openWeights(dir);
  try {
    return { config, params: nest(await loadTable(retrievalWeights(config), reader, o)) as RetrievalParams };
  } finally {
    await reader.close();
  }
}

/**
 * Writes `config.json` and `model.safetensors` in float32, as transformers reads them, and copies tokenizer and preprocessor files from
 * `copyFrom`, and `files`. All are complete before the folder appears.
 * @throws ModelError when the weights do not fit the config; nothing is written then
 */
export async function saveRetrievalModel(
  { config, params }: RetrievalModel,
  dir: string,
  { copyFrom, files = {} }: { copyFrom?: string; files?: Record<string, object> } = {},
): Promise<void> {
  const tensors = tensorsToWrite(params, retrievalWeights(config));
  await replaceFolder(dir, MODEL_FOLDER, async (at) => {
    if (copyFrom !== undefined) await copyCompanions(copyFrom, at);
    for (const [name, json] of Object.entries(files))
      await writeFileAtomic(join(at, name), JSON.stringify(json, null, 2) + '\n');
    await writeSharded(at, tensors);
    await writeFileAtomic(join(at, 'config.json'), configText(config.raw));
  });
}

/** Adapter folders on disk. */
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import type { Tie } from '@blip2/nn';
import { isRecord, WeightsError } from '@blip2/weights';
import {
  openWeights,
  readJsonFile,
  replaceFolder,
  writeFileAtomic,
  writeSafetensors,
} from '@blip2/weights/node';
import type { FolderKind } from '@blip2/weights/node';
import { CONFIG, EXTRA, hasExtra, readAdapter } from './adapter';
import type { Adapter } from './adapter';
import { adapterFiles } from './adapter-files';
import { adapterFolder, openAdapterWeights } from './adapter-place';
import { parseLoraConfig } from './config';
import type { LoraConfig } from './config';
import { AdapterError } from './errors';

const ADAPTER_FOLDER: FolderKind = {
  marker: CONFIG,
  parts: /^(adapter_model|extra_trainables)\.safetensors$/,
};

/**
 * Writes the LoRA and the trained tensors of `tree` as a PEFT adapter folder. The files are complete before the folder
 * appears or, if it exists, before any file is replaced; its other files are kept.
 * @param options the LoRA configuration of the tree; not needed without LoRA
 * @param ties the model's tied tensors
 * @throws AdapterError when configuration and tree contradict each other, or nothing or everything trains
 */
export async function saveAdapter(
  dir: string,
  tree: object,
  options: Partial<LoraConfig> = {},
  ties: readonly Tie[] = [],
): Promise<void> {
  const files = adapterFiles(tree, options, ties, dir);
  await replaceFolder(dir, ADAPTER_FOLDER, async (at) => {
    for (const [name, content] of files) {
      const write =
        typeof content === 'string'
          ? writeFileAtomic(join(at, name), content)
          : writeSafetensors(join(at, name), content);
      await write;
    }
  });
}

/**
 * Reads an adapter folder of this package or of PEFT, or its only subfolder that is one; tensors become float32.
 * `adapter_model.bin` of PEFT before 0.8 is read without running anything.
 * @throws AdapterError for a missing or broken file, an unsupported option, or a tensor with an unknown name
 */
export async function loadAdapter(path: string): Promise<Adapter> {
  const dir = await adapterFolder(path);
  const config = parseLoraConfig(await readConfig(dir), join(dir, CONFIG));
  const readers: Awaited<ReturnType<typeof openAdapterWeights>>[] = [];
  try {
    readers.push(await openAdapterWeights(dir));
    if (hasExtra(config) || (await exists(join(dir, EXTRA))))
      readers.push(await openWeights(join(dir, EXTRA)));
    return await readAdapter({ where: dir, config, weights: readers[0]!, extra: readers[1] });
  } catch (error) {
    if (!(error instanceof WeightsError)) throw error;
    throw new AdapterError(error.message, error.problems, { cause: error });
  } finally {
    for (const reader of readers) await reader.close();
  }
}

async function readConfig(dir: string): Promise<unknown> {
  const file = join(dir, CONFIG);
  try {
    const json = await readJsonFile(file);
    if (isRecord(json)) return json;
    throw new Error('not a JSON object');
  } catch (error) {
    throw new AdapterError(
      `${file}: expected a PEFT adapter configuration: ${(error as Error).message}`,
      undefined,
      { cause: error },
    );
  }
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

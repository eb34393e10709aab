/** What a run is made of, so that a resumed run is known to be the same run. */
import type { Hash } from 'node:crypto';
import { createHash } from 'node:crypto';
import { open, readdir, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Example } from '@blip2/data-captions';
import { resolveModel } from '@blip2/weights/node';
import type { RunIdentity } from './checkpoint';
import type { FitConfig } from '../config';
import { shapingSettings } from '../config';

export async function runIdentity(
  config: FitConfig,
  train: Example[],
  backend: string,
  world_size: number,
): Promise<RunIdentity> {
  return {
    settings: { ...shapingSettings(config), ...(world_size > 1 && { world_size }) },
    base: await baseFingerprint(resolveModel(config.model)),
    data: dataFingerprint(train),
    backend,
  };
}

/** Why a run cannot continue from a checkpoint: one line per thing that is not the same. */
export function differences(checkpoint: RunIdentity, now: RunIdentity): string[] {
  const keys = [...new Set([...Object.keys(checkpoint.settings), ...Object.keys(now.settings)])];
  const show = (value: unknown) => (value === undefined ? 'not set' : JSON.stringify(value));
  const settings = keys.flatMap((key) => {
    const [was, is] = [show(checkpoint.settings[key]), show(now.settings[key])];
    return was === is ? [] : [`${key}: was ${was}, is ${is}`];
  });
  if (checkpoint.base !== now.base)
    settings.push(
      'model: weights, configuration, tokenizer or preprocessor of the base are not those the run began with',
    );
  if (checkpoint.data !== now.data)
    settings.push('data: the training examples are not those the run began with');
  return settings;
}

const EDGE = 4 << 20;

/** The files of a checkpoint folder that are not weights and shape what is learned: sizes, tokens, pixels. */
const SMALL_FILES = [
  'config.json',
  'preprocessor_config.json',
  'processor_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
];

/**
 * Of a checkpoint folder's weights, configuration, tokenizer and preprocessor: name, size, and the first and last 4 MiB of
 * each file. A small model is covered whole, a large one without reading gigabytes at every start.
 */
export async function baseFingerprint(modelDir: string): Promise<string> {
  const hash = createHash('sha256');
  const names = (await readdir(modelDir)).filter(
    (name) => name.endsWith('.safetensors') || SMALL_FILES.includes(name),
  );
  for (const name of names.sort()) await hashEdges(hash, join(modelDir, name), name);
  return hash.digest('hex');
}

async function hashEdges(hash: Hash, file: string, name: string): Promise<void> {
  const { size } = await stat(file);
  hash.update(`${name} ${size}\n`);
  const handle = await open(file, 'r');
  try {
    const buffer = Buffer.alloc(Math.min(EDGE, size));
    for (const position of new Set([0, size - buffer.length])) {
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, position);
      hash.update(buffer.subarray(0, bytesRead));
    }
  } finally {
    await handle.close();
  }
}

/** Of the examples, in their order, image file name and texts; the data may have moved to another folder. */
export function dataFingerprint(examples: Example[]): string {
  const hash = createHash('sha256');
  for (const { image, caption, captions, question, answer, answers } of examples) {
    const texts = [caption, question, answer, ...(captions ?? []), ...(answers ?? [])];
    hash.update(JSON.stringify([basename(image), ...texts]) + '\n');
  }
  return hash.digest('hex');
}

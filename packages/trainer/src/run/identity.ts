/** What a run is made of, so that a resumed run is known to be the same run. */
import { createHash } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { Example } from '@blip2/data-captions';
import { sharesPictures } from '@blip2/data-captions';
import { openRegular, readRegular, resolveModel, writeFileAtomic } from '@blip2/weights/node';
import type { RunIdentity } from './checkpoint';
import type { FitConfig } from '../config';
import { shapingSettings } from '../config';
import { imageIds } from '../features/cache';
import type { WorkHooks } from '../hooks';
import type { World } from '../train/world';
import { alone, gather, shareWork } from '../train/world';

/** @param shaping what shapes the result beside settings and files */
export async function runIdentity(
  config: FitConfig,
  train: Example[],
  backend: string,
  world_size: number,
  images?: ImageList,
  shaping: Record<string, unknown> = {},
  hooks: WorkHooks = {},
): Promise<RunIdentity> {
  return {
    settings: {
      ...shapingSettings(config),
      ...(world_size > 1 && { world_size }),
      ...(config.group_captions === 'auto' && sharesPictures(train) && { group_captions: 'auto' }),
      ...shaping,
    },
    base: await baseFingerprint(resolveModel(config.model), hooks),
    ...(config.adapter !== undefined && { adapter: await baseFingerprint(resolveModel(config.adapter)) }),
    data: dataFingerprint(train),
    ...(images && { images: imagesFingerprint(images) }),
    backend,
  };
}

/** How a batch is divided among processes. */
const DIVISION = ['world_size', 'per_device_train_batch_size'];

/** Rows of a batch on all processes. A run may go on with another number of them if it keeps this. */
function rowsPerStep({ settings }: RunIdentity): number {
  return Number(settings.per_device_train_batch_size) * Number(settings.world_size ?? 1);
}

/** Why a run cannot continue from a checkpoint: one line per thing that is not the same. */
export function differences(checkpoint: RunIdentity, now: RunIdentity): string[] {
  const keys = [...new Set([...Object.keys(checkpoint.settings), ...Object.keys(now.settings)])];
  const show = (value: unknown) => (value === undefined ? 'not set' : JSON.stringify(value));
  const divided = rowsPerStep(checkpoint) === rowsPerStep(now) ? DIVISION : [];
  const settings = keys.flatMap((key) => {
    if (divided.includes(key)) return [];
    const [was, is] = [show(checkpoint.settings[key]), show(now.settings[key])];
    return was === is ? [] : [`${key}: was ${was}, is ${is}`];
  });
  settings.push(...baseDifferences(checkpoint.base, now.base));
  settings.push(...fileDifferences('adapter', checkpoint.adapter ?? {}, now.adapter ?? {}));
  if (checkpoint.data !== now.data)
    settings.push('data: the training examples are not those the run began with');
  return settings;
}

function baseDifferences(was: RunIdentity['base'], is: RunIdentity['base']): string[] {
  if (typeof was === 'string' || typeof is === 'string')
    return was === is
      ? []
      : ['model: an earlier version made this checkpoint, which did not record all weights'];
  return fileDifferences('model', was, is);
}

function fileDifferences(what: string, was: Record<string, string>, is: Record<string, string>): string[] {
  const other = Object.keys({ ...was, ...is }).filter((name) => was[name] !== is[name]);
  return other.length === 0 ? [] : [`${what}: not the files the run began with: ${other.join(', ')}`];
}

/** The files of a checkpoint or adapter folder that are no safetensors and shape what is learned: sizes, tokens, pixels. */
const SMALL_FILES = [
  'config.json',
  'adapter_config.json',
  'adapter_model.bin',
  'preprocessor_config.json',
  'processor_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
];

/** SHA-256 of each file of a checkpoint or adapter folder that holds weights, configuration, tokenizer or preprocessor. */
export async function baseFingerprint(
  modelDir: string,
  hooks: WorkHooks = {},
): Promise<Record<string, string>> {
  const names = (await readdir(modelDir)).filter(
    (name) => name.endsWith('.safetensors') || SMALL_FILES.includes(name),
  );
  const hashes: Record<string, string> = {};
  for (const [done, name] of names.sort().entries()) {
    hooks.onPhase?.({ name: 'hashing the model', done, total: names.length });
    const hash = createHash('sha256');
    const { handle } = await openRegular(join(modelDir, name));
    await pipeline(handle.createReadStream(), hash);
    hashes[name] = hash.digest('hex');
  }
  return hashes;
}

/** The training images of a run, in order, with the SHA-256 of each. */
export type ImageList = readonly (readonly [id: string, image: string])[];

/** Reads every training image once, each rank its share. @throws DataError for one that cannot be read */
export async function hashImages(train: Example[], world: World = alone): Promise<ImageList> {
  const files = [...new Set(train.map(({ image }) => image))];
  const own = files.filter((_, i) => i % world.size === world.rank);
  const ids = await shareWork(world, () => imageIds(own, {}));
  const all = (await gather(world, JSON.stringify(own.map((file) => ids.get(file))))).map(
    (text) => JSON.parse(text) as string[],
  );
  return files.map((file, i) => [all[i % world.size][Math.floor(i / world.size)], file] as const);
}

const IMAGES = 'images.sha256';

/** As `sha256sum` writes it. */
const listText = (images: ImageList) => images.map(([id, image]) => `${id}  ${image}\n`).join('');

export async function writeImageList(dir: string, images: ImageList): Promise<void> {
  await writeFileAtomic(join(dir, IMAGES), listText(images));
}

/** The SHA-256 of each image in the list of a run folder; undefined if that cannot be read. */
export async function readImageList(dir: string): Promise<string[] | undefined> {
  const text = await readRegular(join(dir, IMAGES)).catch(() => undefined);
  return text
    ?.toString('utf8')
    .split('\n')
    .map((line) => line.slice(0, 64));
}

/** The images whose content is not that of the list in the run folder; undefined if that cannot be read. */
export async function changedImages(dir: string, images: ImageList): Promise<string[] | undefined> {
  const before = await readImageList(dir);
  return before && images.flatMap(([id, image], i) => (id === before[i] ? [] : [image]));
}

/** Of the contents alone; the data may have moved to another folder. */
const imagesFingerprint = (images: ImageList) =>
  createHash('sha256')
    .update(images.map(([id]) => id).join())
    .digest('hex');

/** Of the examples, in their order, image file name and texts; the data may have moved to another folder. */
export function dataFingerprint(examples: Example[]): string {
  const hash = createHash('sha256');
  for (const { image, caption, captions, question, answer, answers } of examples) {
    const texts = [caption, question, answer, ...(captions ?? []), ...(answers ?? [])];
    hash.update(JSON.stringify([basename(image), ...texts]) + '\n');
  }
  return hash.digest('hex');
}

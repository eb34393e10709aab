/** The feature cache of a run: whether there is one, and where. */
import { basename, resolve } from 'node:path';
import { DataError, imagesError } from '@blip2/data-captions';
import type { Example } from '@blip2/data-captions';
import { resolveModel } from '@blip2/weights/node';
import type { FitConfig } from '../config';
import { decodingOf } from '../config';
import type { CacheOptions, FeatureCache, FeatureKey, FeatureStore } from '.';
import { cacheBytes, defaultCacheDir, featureKey, mib, openFeatureCache, openStore, useFeatures } from '.';
import type { LoadedStage } from '.';
import type { WorkHooks } from '../hooks';
import type { Kind } from '../objective';
import type { Opened, Planned } from '../stages';
import { gather, shareWork } from '../train/world';

const MIB = 2 ** 20;

/**
 * The cache of all images of the run, if it is exact, requested and small enough. Reports its stage, size and place.
 * @param stage the deepest one that depends on nothing that trains; undefined if the vision tower trains
 * @param held gets what ends the use of the folder
 * @throws the signal's reason when it is raised; Error when features that do not fit in memory cannot be written
 */
export async function makeCache<K extends Kind>(
  run: Opened<K>,
  stage: LoadedStage | undefined,
  hooks: WorkHooks,
  held: (() => Promise<void>)[],
): Promise<FeatureCache | undefined> {
  const { config, processor } = run;
  const say = hooks.onMessage ?? (() => undefined);
  if (!config.cache_features || !stage) return void say(withoutCache(config, stage));
  const files = everyImage(run);
  const { name, shape } = stage;
  const bytes = cacheBytes(shape, files.size);
  const inMemory = bytes <= config.cache_memory_mb * MIB;
  const onDisk = bytes <= config.cache_limit_mb * MIB;
  const size = `${name} of ${files.size.toLocaleString('en')} images, ${mib(bytes)}`;
  if (!inMemory && !onDisk) return void say(tooLarge(config, size));
  const begin = performance.now();
  const dir = resolve(resolveModel(config.model));
  const key = () => featureKey(dir, stage, decodingOf(config), run.hashes?.features);
  const store = onDisk ? await storeOf(config, { key, shape, inMemory }, say, held) : undefined;
  const options: CacheOptions = {
    batch_size: config.per_device_eval_batch_size,
    store,
    share: await shareOf(run, store),
    inMemory,
    known: new Map(run.images?.map(([id, image]) => [image, id])),
    signal: hooks.signal,
    onProgress: (done, total) => hooks.onPhase?.({ name: 'caching features', done, total }),
    onStoreLost: ({ message }) => say(lost(store!.dir, message)),
  };
  const cache = await shareWork(run.world, () =>
    openFeatureCache(stage, processor, files, options).catch((error: unknown) => {
      if (hooks.signal?.aborted && error === hooks.signal.reason) return undefined; // all ranks stop after this
      throw withRow(run, error);
    }),
  );
  if (!cache) throw hooks.signal!.reason;
  const seconds = (performance.now() - begin) / 1000;
  say(`feature cache: ${size} ${place(store, inMemory)}: ${counts(cache)}, ${seconds.toFixed(1)} s`);
  return cache;
}

const counts = ({ found, computed, left }: FeatureCache) =>
  `${found.toLocaleString('en')} found, ${computed.toLocaleString('en')} computed` +
  (left > 0 ? `, ${left.toLocaleString('en')} left to other processes` : '');

/** The share of this rank among those that fill the same store. Processors that compute other bits have another one. */
async function shareOf(
  { world }: Pick<Opened, 'world'>,
  store: FeatureStore | undefined,
): Promise<CacheOptions['share']> {
  const stores = await gather(world, store ? basename(store.dir) : '');
  if (!store) return undefined;
  const same = [...stores.keys()].filter((rank) => stores[rank] === stores[world.rank]);
  return { index: same.indexOf(world.rank), of: same.length };
}

const tooLarge = ({ cache_limit_mb }: FitConfig, size: string) =>
  `feature cache: none; ${size} is above cache_limit_mb (${cache_limit_mb}), so frozen parts run at each step`;

function withoutCache({ image_augmentation: kind }: FitConfig, stage: LoadedStage | undefined): string {
  if (!stage) return 'feature cache: none, because the vision tower trains';
  return kind
    ? `feature cache: none, because image_augmentation (${kind}) shows other pixels at each visit; the frozen parts run at each step`
    : 'feature cache: off';
}

export function place(store: FeatureStore | undefined, inMemory: boolean): string {
  if (!store) return 'in memory only';
  return `in ${store.dir}${inMemory ? ', held in memory' : ', read batch by batch'}`;
}

const everyImage = (run: Planned): Set<string> => new Set(everyExample(run).map(({ image }) => image));

const everyExample = ({ data, final }: Planned): Example[] =>
  [data.train, data.validation, final?.dataset].flatMap((set) => set?.examples ?? []);

/** Names the row of an image that cannot be read. */
function withRow(run: Planned, error: unknown): unknown {
  if (!(error instanceof DataError)) return error;
  const example = everyExample(run).find(({ image }) => error.message.startsWith(`${image}: `));
  return example ? imagesError([{ example, error }]) : error;
}

/** The store on disk. If it cannot be written, features that fit in memory are kept there. */
export async function storeOf(
  config: FitConfig,
  { key, shape, inMemory }: { key(): Promise<FeatureKey>; shape: [number, number]; inMemory: boolean },
  say: (text: string) => void,
  held: (() => Promise<void>)[],
): Promise<FeatureStore | undefined> {
  const root = config.cache_dir ?? defaultCacheDir();
  const made = await key();
  try {
    const store = await openStore(root, made, shape, resolve(resolveModel(config.model)));
    held.push(await useFeatures(store.dir));
    return store;
  } catch (error) {
    const { message } = error as Error;
    if (inMemory) return void say(lost(root, message));
    throw new Error(
      `cache_dir: ${root} cannot be written (${message}); choose another, or cache_features: false`,
    );
  }
}

export const lost = (dir: string, why: string) =>
  `feature cache: ${dir} cannot be written (${why}); kept in memory only`;

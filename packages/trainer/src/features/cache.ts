/**
 * Work that is the same at every step is done once: the output of the deepest stage before anything that trains, per
 * image. Exact, because a part in which nothing trains runs as in evaluation, and because the values are kept as the model
 * computed them, in float32 whatever the precision of its matmuls.
 */
import type { ImageInput } from '@blip2/blip2';
import type { Processor } from '@blip2/data-captions';
import { imageId } from '@blip2/data-captions';
import type { CachedStage, LoadedStage } from './stage';
import { cacheBytes, joined, runStage, stageInput } from './stage';
import type { FeatureStore } from './store';
import { freeBytes } from './store';

export interface FeatureCache {
  stage: CachedStage;
  /** of one image */
  shape: [rows: number, cols: number];
  /** distinct contents, and the bytes of their features */
  images: number;
  bytes: number;
  /** how many were found on disk and how many had to be computed */
  found: number;
  computed: number;
  /** how many others compute, and are read when they are asked for */
  left: number;
  inMemory: boolean;
  /** The content id of a file. @throws Error for a file that is not in the cache */
  idOf(file: string): string;
  /** The values of these files in their order, one image after the other. @throws Error for a file that is not in the cache */
  rows(files: string[]): Promise<Float32Array>;
}

export interface CacheOptions {
  batch_size: number;
  /** keeps features between runs; without it they are kept in memory only */
  store?: FeatureStore;
  /** what is missing is divided among so many that fill one store; default: this cache computes all of it */
  share?: { index: number; of: number };
  /** all features are held in memory; otherwise they are read from the store when they are asked for */
  inMemory: boolean;
  /** ids of images that have been hashed already */
  known?: ReadonlyMap<string, string>;
  signal?: AbortSignal;
  onProgress?(done: number, total: number): void;
  /** called when the store cannot be written: features are then kept in memory only. Without `inMemory` that is an error */
  onStoreLost?(error: Error): void;
}

/** The functions that compute and store features. */
interface Maker {
  processor: Processor;
  stage: LoadedStage;
  store?: FeatureStore;
  /** by content */
  memory?: Map<string, Float32Array>;
  onStoreLost?(error: Error): void;
}

/**
 * The features of every distinct image of `files`: those that the store holds, and the rest computed, in batches, while
 * the next ones are decoded.
 * @throws the signal's reason after an abort; DataError for a picture that cannot be read; the file system's error
 * when features cannot be written
 */
export async function openFeatureCache(
  stage: LoadedStage,
  processor: Processor,
  files: Iterable<string>,
  o: CacheOptions,
): Promise<FeatureCache> {
  if (!o.store && !o.inMemory) throw new Error('feature cache: expected a store, or to be held in memory');
  const { store, onStoreLost } = o;
  const memory = o.inMemory ? new Map<string, Float32Array>() : undefined;
  const { shape } = stage;
  const maker: Maker = { processor, stage, store, memory, onStoreLost };
  const ids = await imageIds(files, o);
  const fileOf = new Map([...ids].map(([file, id]) => [id, file]));
  const missing = await missingImages(maker, [...fileOf.keys()], o);
  const found = fileOf.size - missing.length;
  const own = missing.filter(isOwn([...fileOf.keys()], o.share));
  if (!memory) await checkSpace(store!, cacheBytes(shape, missing.length)); // of all shares: they fill one disk
  await computeAll(
    maker,
    own.map((id) => [id, fileOf.get(id)!]),
    found,
    o,
  );
  return {
    stage: stage.name,
    shape,
    images: fileOf.size,
    bytes: cacheBytes(shape, fileOf.size),
    found,
    computed: own.length,
    left: missing.length - own.length,
    inMemory: o.inMemory,
    idOf: (file) => idOf(ids, file),
    rows: (wanted) => rowsOf(maker, ids, wanted),
  };
}

/** Whether this cache computes an image. It depends on its place among all, because others may be at work already. */
function isOwn(ids: string[], { index, of } = { index: 0, of: 1 }): (id: string) => boolean {
  const own = new Set(ids.filter((_, i) => i % of === index));
  return (id) => own.has(id);
}

/** Features of these files as the model's image input. */
export async function cachedInput(cache: FeatureCache, files: string[]): Promise<ImageInput> {
  return stageInput(cache.stage, cache.shape, await cache.rows(files));
}

/** Number of files read at the same time. */
const AT_ONCE = 8;

/** The content ids of distinct images. */
export async function imageIds(
  files: Iterable<string>,
  { signal, known }: { signal?: AbortSignal; known?: ReadonlyMap<string, string> },
): Promise<Map<string, string>> {
  const distinct = [...new Set(files)];
  const ids = new Map<string, string>();
  for (let from = 0; from < distinct.length; from += AT_ONCE) {
    signal?.throwIfAborted();
    const some = distinct.slice(from, from + AT_ONCE);
    (await Promise.all(some.map((image) => known?.get(image) ?? imageId(image)))).forEach((id, i) =>
      ids.set(some[i], id),
    );
  }
  return ids;
}

/** Contents that are not in the store. With `inMemory`, those in the store are read now. */
async function missingImages(maker: Maker, ids: string[], { signal }: CacheOptions): Promise<string[]> {
  const { store, memory } = maker;
  if (!store) return ids;
  const there = async (id: string) => {
    if (!memory) return store.has(id);
    const values = await store.read(id);
    if (values) memory.set(id, values);
    return values !== undefined;
  };
  const missing: string[] = [];
  for (let from = 0; from < ids.length; from += AT_ONCE) {
    signal?.throwIfAborted();
    const some = ids.slice(from, from + AT_ONCE);
    (await Promise.all(some.map(there))).forEach((found, i) => found || missing.push(some[i]));
  }
  return missing;
}

async function computeAll(
  maker: Maker,
  missing: [id: string, file: string][],
  found: number,
  o: CacheOptions,
): Promise<void> {
  const decode = (from: number) => pixelsOf(maker, missing.slice(from, from + o.batch_size));
  let next = decode(0);
  for (let from = 0; from < missing.length; from += o.batch_size) {
    o.signal?.throwIfAborted();
    const pixels = await next;
    next = decode(from + o.batch_size);
    next.catch(() => undefined); // reported when it is awaited
    const ids = missing.slice(from, from + o.batch_size).map(([id]) => id);
    await keep(maker, ids, await runStage(maker.stage, pixels));
    o.onProgress?.(found + from + ids.length, found + missing.length);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** The decoded images. Refuses one that has changed since it was hashed, because it would be stored under a wrong name. */
async function pixelsOf({ processor }: Maker, images: [id: string, file: string][]): Promise<Float32Array[]> {
  return Promise.all(
    images.map(async ([id, file]) => {
      const pixels = await processor.pixels(file);
      if ((await imageId(file)) === id) return pixels;
      throw new Error(
        `feature cache: ${file}: the image was changed while the run was reading it; start again`,
      );
    }),
  );
}

async function keep(maker: Maker, ids: string[], rows: Float32Array[]): Promise<void> {
  const { memory, store } = maker;
  if (memory) ids.forEach((id, i) => memory.set(id, rows[i]));
  if (!store) return;
  try {
    await Promise.all(ids.map((id, i) => store.write(id, rows[i])));
  } catch (error) {
    if (!memory) throw storeError(store, (error as Error).message);
    maker.store = undefined;
    maker.onStoreLost?.(error as Error);
  }
}

async function checkSpace(store: FeatureStore, needed: number): Promise<void> {
  const free = await freeBytes(store.dir);
  if (needed > free) throw storeError(store, `${mib(needed)} are needed, ${mib(free)} are free`);
}

export function storeError({ dir }: FeatureStore, why: string): Error {
  return new Error(
    `feature cache: ${dir}: ${why}; make room, set cache_dir to a larger disk, or turn the cache off (cache_features: false)`,
  );
}

/** Bytes as MiB, for messages. */
export const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

function idOf(ids: Map<string, string>, file: string): string {
  const id = ids.get(file);
  if (id === undefined) throw new Error(`feature cache: ${file} is not among its ${ids.size} images`);
  return id;
}

async function rowsOf(maker: Maker, ids: Map<string, string>, files: string[]): Promise<Float32Array> {
  const rows = files.map(async (file) => {
    const id = idOf(ids, file);
    const known = maker.memory?.get(id);
    if (known) return known;
    const values = await maker.store?.read(id);
    if (values) maker.memory?.set(id, values);
    return values;
  });
  const found = await Promise.all(rows);
  const lost = files.filter((_, i) => !found[i]);
  if (lost.length > 0) {
    const again = await recompute(maker, ids, [...new Set(lost)]);
    files.forEach((file, i) => (found[i] ??= again.get(file)));
  }
  return joined(found as Float32Array[]);
}

/** The error for features that are missing or damaged on disk. */
async function recompute(
  maker: Maker,
  ids: Map<string, string>,
  files: string[],
): Promise<Map<string, Float32Array>> {
  const images = files.map((file): [string, string] => [ids.get(file)!, file]);
  const rows = await runStage(maker.stage, await pixelsOf(maker, images));
  await keep(
    maker,
    images.map(([id]) => id),
    rows,
  );
  return new Map(files.map((file, i) => [file, rows[i]]));
}

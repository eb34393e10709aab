import { mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { imageFeatures, queryEmbeds, textIds } from '@blip2/blip2';
import { loadConfig, loadFolder } from '@blip2/blip2/node';
import type { Blip2 } from '@blip2/blip2';
import type { Processor } from '@blip2/data-captions';
import { loadProcessor } from '@blip2/data-captions';
import { dispose, memory, tidy } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import type { Tensor } from '@blip2/nn';
import { beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { readImages } from '../evaluation';
import { TINY_MODEL, tinyJob } from '../../spec/tiny';
import type { CacheOptions } from './cache';
import { cachedInput, openFeatureCache } from './cache';
import type { FeatureKey } from './key';
import { featureKey } from './key';
import type { CachedStage } from './stage';
import { cacheableStage, cacheBytes, loadedStage, stageShape } from './stage';
import type * as features from './store';
import type { FeatureStore } from './store';
import { freeBytes, openStore } from './store';

vi.mock('./store', async (original) => {
  const store = await original<typeof features>();
  return { ...store, freeBytes: vi.fn(store.freeBytes) };
});

let model: Blip2;
let processor: Processor;
let key: FeatureKey;
let files: string[];
let root: string;

beforeAll(async () => {
  await useBackend('cpu');
  model = await loadFolder(TINY_MODEL);
  processor = await loadProcessor(TINY_MODEL, textIds(await loadConfig(TINY_MODEL)));
  key = await featureKey(TINY_MODEL, loadedStage(model, 'query_embeds'));
  const job = await tinyJob();
  files = [0, 1, 2, 3].map((i) => join(job, 'train', `0-${i}.png`));
});
beforeEach(async () => void (root = await mkdtemp(join(tmpdir(), 'blip2-features-'))));

const store = () => openStore(root, key, stageShape(model.config, 'query_embeds'));
const open = (stage: CachedStage, o: Partial<CacheOptions>, wanted = files) =>
  openFeatureCache(loadedStage(model, stage), processor, wanted, { batch_size: 3, inMemory: true, ...o });

/** The files of a store that hold features. */
async function entries({ dir }: FeatureStore): Promise<string[]> {
  const names = await readdir(dir, { recursive: true });
  return names
    .filter((name) => name.endsWith('.f32'))
    .map((name) => join(dir, name))
    .sort();
}

describe('cacheableStage', () => {
  it.each([
    [['language_model.model.decoder.layers.0.self_attn.q_proj.lora.lora_A.weight'], 'query_embeds'],
    [['language_projection.weight'], 'image_features'],
    [['query_tokens'], 'image_features'],
    [['qformer.layernorm.weight', 'language_model.lm_head.weight'], 'image_features'],
    [['vision_model.post_layernorm.weight', 'query_tokens'], undefined],
  ])('is the last stage before what trains: %s', (names, stage) => {
    expect(cacheableStage(model.config, names)).toBe(stage);
  });
});

describe('the feature cache', () => {
  it.each(['image_features', 'query_embeds'] as const)(
    'holds %s of each distinct image, bit by bit as computed afresh',
    async (stage) => {
      const before = memory().numTensors;
      const cache = await open(stage, {}, [...files, files[0]]);
      expect(cache).toMatchObject({
        images: 4,
        bytes: cacheBytes(stageShape(model.config, stage), 4),
        computed: 4,
      });
      const order = [files[2], files[0]];
      const given = (await cachedInput(cache, order)) as unknown as Record<string, Tensor>;
      expect(Object.keys(given)).toEqual([stage]);
      const { pixel_values } = await readImages(
        processor,
        order.map((image) => ({ image })),
      );
      const fresh = tidy(() => {
        const features = imageFeatures(model, pixel_values);
        return stage === 'image_features' ? features : queryEmbeds(model, features);
      });
      expect(given[stage].shape).toEqual(fresh.shape);
      const [a, b] = [await given[stage].data(), await fresh.data()];
      expect(a).toEqual(b);
      expect(a).not.toEqual(a.slice().reverse());
      dispose([given[stage], fresh, pixel_values]);
      expect(memory().numTensors).toBe(before);
    },
  );

  it.each([true, false])('gives a later run the same bits from disk (in memory: %s)', async (inMemory) => {
    const first = await open('query_embeds', { store: await store(), inMemory });
    const second = await open('query_embeds', { store: await store(), inMemory });
    expect(first).toMatchObject({ found: 0, computed: 4 });
    expect(second).toMatchObject({ found: 4, computed: 0, inMemory });
    const order = [files[3], files[1], files[3]];
    expect(await second.rows(order)).toEqual(await first.rows(order));
    expect(await readdir(join((await store()).dir, 'tmp'))).toEqual([]);
  });

  it('knows an image by its content, wherever it lies', async () => {
    const copy = join(root, 'copy.png');
    await writeFile(copy, await readFile(files[0]));
    const cache = await open('query_embeds', { store: await store() }, [...files, copy]);
    expect(cache.images).toBe(4);
    expect(await cache.rows([copy])).toEqual(await cache.rows([files[0]]));
  });

  it.each([
    ['cut off', (bytes: Buffer) => bytes.subarray(0, bytes.length - 5)],
    ['with a flipped bit', (bytes: Buffer) => bytes.fill(bytes[100] ^ 4, 100, 101)],
    ['of another shape', (bytes: Buffer) => bytes.fill(9, 8, 9)],
    ['of another format', (bytes: Buffer) => bytes.fill('x', 0, 1)],
  ])('computes an entry again that is %s', async (_, damage) => {
    const good = await open('query_embeds', { store: await store() });
    const whole = await good.rows(files);
    for (const inMemory of [true, false]) {
      const [entry] = await entries(await store());
      const bytes = await readFile(entry);
      await writeFile(entry, damage(Buffer.from(bytes)));
      const cache = await open('query_embeds', { store: await store(), inMemory });
      expect(await cache.rows(files)).toEqual(whole);
      expect(await readFile(entry)).toEqual(bytes);
    }
  });

  it('goes on when the folder is deleted under it', async () => {
    const cache = await open('query_embeds', { store: await store(), inMemory: false });
    const whole = await cache.rows(files);
    await rm(root, { recursive: true });
    expect(await cache.rows(files)).toEqual(whole);
    expect(await entries({ dir: join(root, `query_embeds-${key.id}`) } as FeatureStore)).toHaveLength(4);
  });

  it('does not take an entry of another image, or of another key, for its own', async () => {
    const cache = await open('query_embeds', { store: await store(), inMemory: false });
    const right = await cache.rows(files);
    const made = await entries(await store());
    for (const other of made.slice(1)) await writeFile(other, await readFile(made[0]));
    expect(await cache.rows(files)).toEqual(right);
    const elsewhere = await openStore(root, { ...key, id: 'another' }, cache.shape);
    const id = basename(made[0], '.f32');
    await mkdir(join(elsewhere.dir, id.slice(0, 2)), { recursive: true });
    await writeFile(join(elsewhere.dir, id.slice(0, 2), `${id}.f32`), await readFile(made[0]));
    expect([await elsewhere.has(id), await elsewhere.read(id)]).toEqual([true, undefined]);
  });

  it('can be filled by two runs at once', async () => {
    const both = [await store(), await store()].map((s) =>
      open('query_embeds', { store: s, inMemory: false }),
    );
    const [a, b] = await Promise.all(both);
    expect(await a.rows(files)).toEqual(await b.rows(files));
    expect(await entries(await store())).toHaveLength(4);
  });

  it('needs room on the disk for the shares of all', async () => {
    const { shape } = loadedStage(model, 'query_embeds');
    const half = { share: { index: 0, of: 2 }, inMemory: false };
    vi.mocked(freeBytes).mockResolvedValueOnce(cacheBytes(shape, 3));
    const run = open('query_embeds', { store: await store(), ...half });
    await expect(run).rejects.toThrow(/feature cache: .* are needed, .* are free; make room/);
    vi.mocked(freeBytes).mockResolvedValueOnce(cacheBytes(shape, 4));
    expect(await open('query_embeds', { store: await store(), ...half })).toMatchObject({
      computed: 2,
      left: 2,
    });
  });

  it('stays in memory when the disk cannot be written, and says so; without memory it is an error', async () => {
    const broken = { ...(await store()), write: () => Promise.reject(new Error('ENOSPC: no space left')) };
    const said: string[] = [];
    const onStoreLost = ({ message }: Error) => void said.push(message);
    const cache = await open('query_embeds', { store: broken, batch_size: 1, onStoreLost });
    expect(said).toEqual(['ENOSPC: no space left']);
    expect((await cache.rows(files)).length).toBe(cache.bytes / 4);
    const run = open('query_embeds', { store: broken, inMemory: false });
    await expect(run).rejects.toThrow(/feature cache: .*ENOSPC: no space left; make room, set cache_dir/);
  });

  it('refuses an image that changed after it was hashed, instead of storing it under a wrong name', async () => {
    const file = join(root, 'changing.png');
    await writeFile(file, await readFile(files[0]));
    const cache = await open('query_embeds', { store: await store(), inMemory: false }, [file]);
    await rm((await entries(await store()))[0]);
    await writeFile(file, await readFile(files[1]));
    await expect(cache.rows([file])).rejects.toThrow(/changing\.png: the image was changed/);
    expect(await entries(await store())).toEqual([]);
  });

  it('removes what a killed process left half-written, once it is old', async () => {
    const { dir } = await store();
    for (const [name, age] of [
      ['old', 2 * 3600],
      ['new', 60],
    ] as const) {
      await writeFile(join(dir, 'tmp', name), 'x');
      const time = Date.now() / 1000 - age;
      await utimes(join(dir, 'tmp', name), time, time);
    }
    await store();
    expect(await readdir(join(dir, 'tmp'))).toEqual(['new']);
  });

  it('names an image it does not have', async () => {
    const cache = await open('query_embeds', {}, files.slice(0, 1));
    await expect(cachedInput(cache, [files[1]])).rejects.toThrow(/0-1\.png is not among its 1 images/);
  });

  it('stops when it is told to', async () => {
    const signal = AbortSignal.abort(new Error('stopped'));
    await expect(open('query_embeds', { signal })).rejects.toThrow('stopped');
  });
});

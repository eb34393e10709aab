/** Factors of int8 weights, measured on a checkpoint with a few channels that are much larger than the others. */
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { dispose, flatten, isQuantised, memory, tidy } from '@blip2/nn';
import type { Tensor4D } from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import { asTensor, batch, golden, goldenFloats, relativeError, tiny } from '../spec/golden';
import { putOutliers } from '../spec/outliers';
import { forward, loss } from './index';
import type { Blip2, Smoothing } from './index';
import type { MeasureOptions } from './node';
import {
  loadConfig,
  loadFolder,
  measureSmoothing,
  MOST_ERROR,
  readSmoothing,
  smoothingDigest,
  writeSmoothing,
} from './node';

const backends = await availableBackends();

describe.skipIf(!backends.includes('native'))('smoothing', () => {
  let root: string, dir: string;
  let image: { pixel_values: Tensor4D };
  const tokens = batch(golden.cases.right);

  beforeAll(async () => {
    await useBackend('native', { precision: 'int8' });
    image = { pixel_values: asTensor((await goldenFloats()).get('pixel_values')!, 2) };
    root = await mkdtemp(join(tmpdir(), 'blip2-smoothing-'));
    dir = join(root, 'model');
    await cp(tiny, dir, { recursive: true });
    await putOutliers(dir, 60, 8);
  });
  afterAll(async () => {
    dispose(image);
    expect(memory()).toMatchObject({ numTensors: 0, numBytesStored: 0 });
    await rm(root, { recursive: true });
  });

  const measure = async (o: MeasureOptions = {}) =>
    measureSmoothing(dir, await loadConfig(dir), (model) => tidy(() => loss(model, image, tokens)), o);
  const logits = async ({ config, params }: Blip2) => {
    const found = tidy(() => forward({ config, params }, image, tokens).logits);
    const values = (await found.data()) as Float32Array;
    found.dispose();
    return values;
  };
  const logitsOf = async (from: string, smoothing?: Smoothing | 'exact', cache_dir?: string) => {
    if (smoothing === 'exact') await useBackend('native');
    const int8 = smoothing === 'exact' ? undefined : { smoothing, cache_dir };
    const model = await loadFolder(from, { int8 });
    const values = await logits(model);
    dispose(model.params);
    await useBackend('native', { precision: 'int8' });
    return values;
  };

  it('repairs what large channels cost, to the bits also when mapped from the file', async () => {
    const wanted = await logitsOf(tiny, 'exact');
    expect(relativeError(await logitsOf(dir, 'exact'), wanted)).toBeLessThan(1e-4);
    const usual = relativeError(await logitsOf(tiny), wanted);
    const plain = relativeError(await logitsOf(dir), wanted);
    const smoothing = await measure();
    const smoothed = await logitsOf(dir, smoothing);
    expect(plain).toBeGreaterThan(4 * usual);
    expect(relativeError(smoothed, wanted)).toBeLessThan(2 * usual);
    expect(smoothing.exact).toEqual([]);
    const cache_dir = join(root, 'cache');
    for (let load = 0; load < 2; load++) expect(await logitsOf(dir, smoothing, cache_dir)).toEqual(smoothed);
    expect(await logitsOf(dir, undefined, cache_dir)).toEqual(await logitsOf(dir));
    expect((await readdir(cache_dir)).filter((name) => name.endsWith('.safetensors'))).toHaveLength(2);
  });

  it('is measured again with the same result, and kept in a file', async () => {
    const [one, two] = [await measure(), await measure()];
    expect(smoothingDigest(two)).toBe(smoothingDigest(one));
    expect(one.factors.size).toBeGreaterThan(10);
    const file = join(root, 'one.safetensors');
    await writeSmoothing(file, { ...one, exact: ['b', 'a'], trained: ['c'] });
    const read = await readSmoothing(file);
    expect([read.exact, read.trained]).toEqual([['b', 'a'], ['c']]);
    expect(smoothingDigest({ ...read, exact: one.exact })).toBe(smoothingDigest(one));
    expect(smoothingDigest(read)).not.toBe(smoothingDigest(one));
    const [name, values] = [...one.factors][0];
    const other = new Map(one.factors).set(name, values.with(0, values[0] * 1.5));
    expect(smoothingDigest({ ...one, factors: other })).not.toBe(smoothingDigest(one));
  });

  it('leaves weights exact whose outputs would change too much', async () => {
    const all = await measure();
    const errors = [...all.errors.values()];
    expect(errors.every(({ plain, chosen }) => chosen <= plain && chosen < MOST_ERROR)).toBe(true);
    const bound = errors.map(({ chosen }) => chosen).sort((a, b) => a - b)[errors.length - 3];
    const some = await measure({ most_error: bound });
    expect(some.exact).toHaveLength(2);
    const model = await loadFolder(dir, { int8: { smoothing: some, cache_dir: join(root, 'some') } });
    const leaves = flatten(model.params);
    for (const name of all.errors.keys())
      expect(isQuantised(leaves.get(name)!), name).toBe(!some.exact.includes(name));
    dispose(model.params);
  });

  it.each([
    [
      'not its format',
      (text: string) => text.replace('blip2-smoothing-1', 'blip2-smoothing-0'),
      /expected the format/,
    ],
    [
      'names that are no list',
      (text: string) => text.replace('"exact":"[]"', '"exact":"{}"'),
      /expected lists of names/,
    ],
    [
      'numbers that are not positive',
      (text: string) => text.slice(0, -1) + '\xff',
      /expected positive numbers/,
    ],
  ])('refuses a file with %s', async (_, change, message) => {
    const file = join(root, 'damaged.safetensors');
    await writeSmoothing(file, { ...(await measure()), exact: [] });
    await writeFile(file, change(await readFile(file, 'latin1')), 'latin1');
    await expect(readSmoothing(file)).rejects.toThrow(message);
  });
});

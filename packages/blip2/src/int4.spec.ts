/** The precision int4: the text model in 4 bits, everything else as in int8. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { checkStoredFiles, dispose, flatten, isQuantised, memory, tidy } from '@blip2/nn';
import type { Tensor4D } from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import { openWeights } from '@blip2/weights/node';
import { asTensor, batch, golden, goldenFloats, relativeError, tiny } from '../spec/golden';
import { forward, loss } from './index';
import type { Blip2 } from './index';
import { fitInt4, loadFolder, measureSmoothing, quantiseFolder, ScratchWeights } from './node';
import type { Int8FileOptions } from './node';

const backends = await availableBackends();

describe.skipIf(!backends.includes('native'))('int4', () => {
  let cache_dir: string;
  let image: { pixel_values: Tensor4D };
  let said: string[];
  const tokens = batch(golden.cases.right);
  const load = (o: Int8FileOptions = {}) =>
    loadFolder(tiny, { int8: { cache_dir, text_bits: 4, onMessage: (text) => said.push(text), ...o } });
  const files = async () =>
    (await readdir(cache_dir))
      .filter((name) => name.endsWith('.safetensors'))
      .map((name) => join(cache_dir, name));

  beforeAll(async () => {
    await useBackend('native', { precision: 'int4' });
    image = { pixel_values: asTensor((await goldenFloats()).get('pixel_values')!, 2) };
  });
  beforeEach(async () => {
    cache_dir = await mkdtemp(join(tmpdir(), 'blip2-int4-'));
    said = [];
    return () => rm(cache_dir, { recursive: true });
  });
  afterAll(async () => {
    dispose(image);
    expect(memory()).toMatchObject({ numTensors: 0, numBytesStored: 0 });
  });

  const logits = async ({ config, params }: Blip2) => {
    const found = tidy(() => forward({ config, params }, image, tokens).logits);
    const values = (await found.data()) as Float32Array;
    found.dispose();
    return values;
  };

  it('is the name of the precision', async () => {
    expect((await useBackend('native', { precision: 'int4' })).precision).toBe('int4');
  });

  it('is made once and mapped afterwards: the same bits as in memory, the text model in 4 bits', async () => {
    const one = await load();
    expect(said.join()).toMatch(/^int4 weights: \d+ MiB made in .* s, in .*int4-[0-9a-f]{32}\.safetensors$/);
    const reader = await openWeights((await files())[0]);
    await reader.close();
    const kinds = new Map([...reader.entries.values()].map(({ name, quantised }) => [name, quantised?.kind]));
    const rounded = [...flatten(one.params)].filter(([, leaf]) => isQuantised(leaf)).map(([name]) => name);
    expect(rounded.length).toBeGreaterThan(20);
    for (const name of rounded)
      expect(kinds.get(name), name).toBe(name.startsWith('language_model.') ? 'INT4' : undefined);
    const [two, three] = [await load(), await load({ cache_dir: undefined })];
    checkStoredFiles(); // another use does not change the file of the first
    expect(said).toHaveLength(1);
    const wanted = await logits(one);
    for (const other of [two, three]) expect(await logits(other)).toEqual(wanted);
    const eight = await load({ text_bits: 8 });
    expect(await files()).toHaveLength(2);
    expect(relativeError(await logits(eight), wanted)).toBeGreaterThan(0.02);
    for (const { params } of [one, two, three, eight]) dispose(params);
  });

  it.each([0.3, 0.6, 0.999])('is made again if a bit is flipped at %d of the file', async (place) => {
    const one = await load();
    const [file] = await files();
    const whole = await readFile(file);
    await rm(file); // the mapped one lives on
    const damaged = Buffer.from(whole);
    damaged[Math.floor(place * damaged.length)] ^= 4;
    await writeFile(file, damaged);
    const two = await load();
    expect(said[1]).toMatch(/int4 weights: .* is made again: /);
    expect((await readFile(file)).equals(whole)).toBe(true);
    expect(await logits(two)).toEqual(await logits(one));
    dispose([one.params, two.params]);
  });

  it('factors measured on pictures bring the text model closer to the exact one', async () => {
    const { config, params } = await loadFolder(tiny);
    dispose(params);
    const run = (model: Blip2) => tidy(() => loss(model, image, tokens));
    const smoothing = await measureSmoothing(tiny, config, run, { text_bits: 4, most_error: Infinity });
    const text = [...smoothing.errors].filter(([name]) => name.startsWith('language_model.'));
    const mean = (of: 'plain' | 'chosen') => text.reduce((sum, [, e]) => sum + e[of], 0) / text.length;
    expect(mean('plain')).toBeGreaterThan(0.02);
    expect(mean('chosen')).toBeLessThan(0.95 * mean('plain'));
    const few = await measureSmoothing(tiny, config, run, { text_bits: 4, most_error: 0.01 });
    expect(few.exact).toEqual(expect.arrayContaining(text.map(([name]) => name)));
  });

  it('a text model fitted to pictures changes less than with plain rounding, and its file has these weights', async () => {
    const { config, params } = await loadFolder(tiny);
    dispose(params);
    const run = (model: Blip2) => tidy(() => loss(model, image, tokens));
    const fit = async (at: string) => {
      const made = new ScratchWeights(at);
      const errors = await fitInt4(tiny, config, run, { onWeight: (name, weight) => made.add(name, weight) });
      return { made, errors };
    };
    const { made, errors } = await fit(join(cache_dir, 'one'));
    const again = await fit(join(cache_dir, 'two'));
    const reader = await openWeights(tiny);
    const text = [...reader.entries.keys()].filter((name) =>
      /^language_model\..*layers\..*(proj|fc\d)\.weight$/.test(name),
    );
    await reader.close();
    expect([...errors.keys()].sort()).toEqual(text.sort());
    for (const name of text) expect(again.made.read(name)).toEqual(made.read(name));
    const mean = (of: 'plain' | 'chosen') => [...errors.values()].reduce((sum, e) => sum + e[of], 0);
    expect(mean('chosen')).toBeLessThan(0.85 * mean('plain'));
    expect(made.read('other')).toBeUndefined();
    const to = join(cache_dir, 'fitted');
    await quantiseFolder(tiny, to, { format: 'int4', made: (name) => made.read(name) });
    const file = await openWeights(to);
    for (const name of text)
      for (const [i, part] of ['', '.steps', '.scales', '.factors'].entries())
        expect(Buffer.from(await file.readRaw(name + part)).equals(made.read(name)![i]!)).toBe(true);
    await file.close();
    made.remove();
    again.made.remove();
    expect((await readdir(cache_dir)).sort()).toEqual(['fitted']);
  });
});

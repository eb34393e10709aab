/** The precision int8: rounded weights, the file that keeps them, and what must not be made of them. */
import { cp, mkdtemp, open, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { dispose, flatten, isQuantised, memory, tidy, valueAndGrads, variable } from '@blip2/nn';
import type { Tensor, Tensor4D } from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import { addLora, applyPreset, mergeLora } from '@blip2/peft-lora';
import { openWeights, writeSafetensors } from '@blip2/weights/node';
import { asTensor, batch, golden, goldenFloats, leafValues, relativeError, tiny } from '../spec/golden';
import { forward, generate, loss } from './index';
import type { Blip2 } from './index';
import type { Int8FileOptions } from './node';
import { loadFolder, saveModel } from './node';

const backends = await availableBackends();

describe.skipIf(!backends.includes('native'))('int8', () => {
  let root: string, dir: string, cache_dir: string;
  let image: { pixel_values: Tensor4D };
  let said: string[];
  const tokens = batch(golden.cases.right);
  const load = (o: Int8FileOptions = {}) =>
    loadFolder(dir, { int8: { cache_dir, onMessage: (text) => said.push(text), ...o } });
  const files = async () =>
    (await readdir(cache_dir))
      .filter((name) => name.endsWith('.safetensors'))
      .map((name) => join(cache_dir, name));

  beforeAll(async () => {
    await useBackend('native', { precision: 'int8' });
    image = { pixel_values: asTensor((await goldenFloats()).get('pixel_values')!, 2) };
  });
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'blip2-int8-'));
    [dir, cache_dir, said] = [join(root, 'model'), join(root, 'cache'), []];
    await cp(tiny, dir, { recursive: true });
    return () => rm(root, { recursive: true });
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
  const rounded = ({ params }: Blip2) =>
    [...flatten(params)].filter(([, leaf]) => isQuantised(leaf)).map(([name]) => name);

  it('rounds the linear layers of every layer, and nothing else', async () => {
    const model = await load();
    const names = rounded(model);
    const tree = [...flatten(model.params)]
      .filter(([, leaf]) => leaf.shape.length === 2)
      .map(([name]) => name);
    const exact = tree.filter((name) => !names.includes(name));
    expect(exact.filter((name) => /layers?\.\d/.test(name))).toEqual([]);
    expect(exact).toContain('language_projection.weight');
    expect(exact).toContain('language_model.model.decoder.embed_tokens.weight');
    for (const part of ['vision_model', 'qformer', 'language_model'])
      expect(names.some((name) => name.startsWith(`${part}.`))).toBe(true);
    dispose(model.params);
    const trained = await load({ keep: (name) => name.startsWith('qformer.') });
    expect(rounded(trained)).toEqual(names.filter((name) => !name.startsWith('qformer.')));
    dispose(trained.params);
  });

  it('is close to float32: logits, loss and the gradients of adapters', async () => {
    const exact = await loadFolder(dir);
    const model = await load();
    const wanted = await inFloat32Async(() => logits(exact));
    const found = await logits(model);
    const cosine = (x: ArrayLike<number>, y: ArrayLike<number>) => {
      const dot = (u: ArrayLike<number>, v: ArrayLike<number>) =>
        Array.from(u).reduce((sum, z, i) => sum + z * v[i], 0);
      return dot(x, y) / Math.sqrt(dot(x, x) * dot(y, y));
    };
    expect(1 - cosine(found, wanted)).toBeLessThan(1e-3); // the tiny model is 16 to 24 wide
    expect(relativeError(found, wanted)).toBeGreaterThan(1e-4); // int8 was used
    const gradients = async (m: Blip2) => {
      const { params, trainables } = applyPreset(
        m.params,
        'lora',
        { init_lora_weights: false, target_modules: ['q_proj', 'fc1'] },
        1,
      );
      const xs = [...trainables.values()];
      const { value, grads } = tidy(() =>
        valueAndGrads(() => loss({ config: m.config, params }, image, tokens), xs),
      );
      const values = await Promise.all([value, ...grads].map(async (t) => [...(await t.data())]));
      dispose([value, ...grads, ...xs]);
      return values.flat();
    };
    const [a, b] = [await gradients(model), await inFloat32Async(() => gradients(exact))];
    expect(1 - cosine(a, b)).toBeLessThan(3e-3);
    dispose([exact.params, model.params]);
  });

  /** The precision belongs to the backend. */
  async function inFloat32Async<T>(f: () => Promise<T>): Promise<T> {
    await useBackend('native');
    const result = await f();
    await useBackend('native', { precision: 'int8' });
    return result;
  }

  it('is made once and mapped afterwards: the same bits as in memory', async () => {
    const one = await load();
    expect(said.join()).toMatch(/int8 weights: \d+ MiB made in .* s, in .*int8-[0-9a-f]{32}\.safetensors/);
    const [file] = await files();
    const before = await stat(file);
    const two = await load();
    const three = await load({ cache_dir: undefined });
    expect(said).toHaveLength(1);
    expect((await stat(file)).ino).toBe(before.ino);
    const wanted = await logits(one);
    for (const other of [two, three]) expect(await logits(other)).toEqual(wanted);
    const { tokens: prompt, options } = golden.generate[0];
    const pixel_values = asTensor<Tensor4D>((await goldenFloats()).get('pixel_values')!, prompt.shape[0]);
    const ids = [];
    for (const model of [one, three])
      ids.push(await generate(model, { pixel_values }, batch(prompt), options));
    expect(ids[0]).toEqual(ids[1]);
    dispose([one.params, two.params, three.params, pixel_values]);
  });

  it.each([
    [
      'with a flipped bit',
      (bytes: Buffer) => bytes.fill(bytes[bytes.length - 5000] ^ 4, bytes.length - 5000, bytes.length - 4999),
    ],
    ['cut off', (bytes: Buffer) => bytes.subarray(0, bytes.length - 5)],
    ['with another header', (bytes: Buffer) => bytes.fill('x', 20, 21)],
    ['empty', () => Buffer.alloc(0)],
  ])('is made again if the file is damaged: %s', async (_, damage) => {
    const one = await load();
    const [file] = await files();
    const whole = await readFile(file);
    await rm(file); // the mapped one lives on
    await writeFile(file, damage(Buffer.from(whole)));
    const two = await load();
    expect(said[1]).toMatch(/int8 weights: .* is made again: /);
    expect((await readFile(file)).equals(whole)).toBe(true);
    expect(await logits(two)).toEqual(await logits(one));
    dispose([one.params, two.params]);
  });

  it('compares the checksums again only if the file was changed, whatever its time', async () => {
    dispose((await load()).params);
    const [file] = await files();
    const mark = file.replace('.safetensors', '.checked');
    const { atime, mtime } = await stat(file);
    const flip = async () => {
      const handle = await open(file, 'r+');
      const { size } = await handle.stat();
      const byte = Buffer.alloc(1);
      await handle.read(byte, 0, 1, size - 5000);
      await handle.write(Buffer.of(byte[0] ^ 4), 0, 1, size - 5000);
      await handle.close();
      await utimes(file, atime, mtime);
    };
    await flip();
    const { dev, ino, size, mtimeNs, ctimeNs } = await stat(file, { bigint: true });
    await writeFile(mark, [dev, ino, size, mtimeNs, ctimeNs].join(' '));
    dispose((await load()).params);
    expect(said).toHaveLength(1); // the mark is believed
    await flip();
    await flip();
    dispose((await load()).params);
    expect(said[1]).toMatch(/is made again: the bytes of .* are damaged/);
  });

  it('is made again for other weights, also with the same size and time', async () => {
    dispose((await load()).params);
    const weights = join(dir, 'model.safetensors');
    const { atime, mtime } = await stat(weights);
    const reader = await openWeights(tiny);
    const tensors = [...reader.entries.values()].map(({ name, dtype, shape }) => ({
      ...{ name, dtype, shape },
      data: async () => (await reader.readFloat32(name)).map((x) => x / 2),
    }));
    await writeSafetensors(weights, tensors, reader.metadata);
    await reader.close();
    await utimes(weights, atime, mtime);
    dispose((await load()).params);
    expect(await files()).toHaveLength(2);
    await utimes(weights, atime, new Date(mtime.getTime() + 5000));
    dispose((await load()).params);
    expect(await files()).toHaveLength(3);
  });

  it('is kept in memory where there is a file in place of the folder', async () => {
    await writeFile(cache_dir, 'x');
    const model = await load();
    expect(said.join()).toMatch(/int8 weights: .* cannot be written \(.*\); they are kept in memory only/);
    expect(rounded(model).length).toBeGreaterThan(10);
    dispose(model.params);
  });

  it('rounded weights are not saved, merged or trained', async () => {
    const model = await load();
    const output = join(root, 'saved');
    await expect(saveModel(model, output)).rejects.toThrow(/rounded to int8; expected its original weights/);
    await saveModel(model, output, { copyFrom: dir });
    const [saved, exact] = [await loadFolder(output), await loadFolder(dir)];
    expect(await leafValues(saved.params)).toEqual(await leafValues(exact.params));
    const name = rounded(model)[0];
    expect(() => variable(flatten(model.params).get(name) as Tensor, name)).toThrow(/was rounded to int8/);
    const { tree } = addLora(model.params, { target_modules: ['q_proj'] }, 1);
    expect(() => mergeLora(tree)).toThrow(/the weight was rounded to int8/);
    dispose([tree, saved.params, exact.params]);
  });

  it('is refused on other backends', async () => {
    await expect(useBackend('cpu', { precision: 'int8' })).rejects.toThrow(
      'precision int8 needs the backend native or webgpu; cpu computes in float32',
    );
    await useBackend('cpu');
    await expect(load({ cache_dir: undefined })).rejects.toThrow(
      'int8 weights need the backend native or webgpu',
    );
    await useBackend('native', { precision: 'int8' });
  });
});

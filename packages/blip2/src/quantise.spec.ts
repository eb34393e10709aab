/** Quantised copies of a checkpoint: what they hold, and that they load everywhere. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { dispose, flatten, isQuantised, memory, tidy } from '@blip2/nn';
import type { Tensor4D } from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import { openWeights, writeSafetensors } from '@blip2/weights/node';
import { asTensor, batch, golden, goldenFloats, leafValues, relativeError, tiny } from '../spec/golden';
import { forward } from './index';
import type { Blip2 } from './index';
import { loadFolder, QUANTISED_FORMATS, quantiseFolder } from './node';
import type { QuantisedFormat, QuantiseOptions } from './node';

const backends = await availableBackends();
const tokens = batch(golden.cases.right);
/** If set, the checkpoints and their logits are kept in this folder for tools/parity/check_quantised.py. */
const kept = process.env['BLIP2_PARITY_OUT'];

describe.skipIf(!backends.includes('native'))('quantised checkpoints', () => {
  let root: string;
  let image: { pixel_values: Tensor4D };
  let wanted: Float32Array;
  beforeAll(async () => {
    root = kept ?? (await mkdtemp(join(tmpdir(), 'blip2-quantise-')));
    await useBackend('native');
    image = { pixel_values: asTensor((await goldenFloats()).get('pixel_values')!, 2) };
    for (const format of QUANTISED_FORMATS) await write({ format });
    const exact = await loadFolder(tiny);
    wanted = await logits(exact);
    dispose(exact.params);
  });
  afterAll(async () => {
    await useBackend('native');
    dispose(image);
    if (!kept) await rm(root, { recursive: true });
    expect(memory()).toMatchObject({ numTensors: 0, numBytesStored: 0 });
  });

  const folder = (name: string) => join(root, name);
  const write = (o: QuantiseOptions, name: string = o.format) => quantiseFolder(tiny, folder(name), o);
  const logits = async (of: Blip2) => {
    const found = tidy(() => forward(of, image, tokens).logits);
    const values = (await found.data()) as Float32Array;
    found.dispose();
    return values;
  };
  const configOf = async (name: string) =>
    JSON.parse(await readFile(join(folder(name), 'config.json'), 'utf8')) as {
      quantization_config: Record<string, unknown>;
    };
  const quantisedOf = async (name: string) => {
    const reader = await openWeights(folder(name));
    await reader.close();
    return new Map([...reader.entries.values()].map((e) => [e.name, e.quantised?.kind]));
  };

  async function keep(format: string, values: Float32Array): Promise<void> {
    const { shape, input_ids, attention_mask } = tokens;
    const pixel_values = (await image.pixel_values.data()) as Float32Array;
    await writeSafetensors(folder(`${format}.expected.safetensors`), [
      { name: 'pixel_values', dtype: 'F32', shape: image.pixel_values.shape, data: pixel_values },
      { name: 'input_ids', dtype: 'I64', shape, data: input_ids },
      { name: 'attention_mask', dtype: 'I64', shape, data: attention_mask! },
      { name: 'logits', dtype: 'F32', shape: [...shape, values.length / shape[0] / shape[1]], data: values },
    ]);
  }

  /** Of the logits; the tiny model is 16 to 24 wide. */
  const LOSS: Record<QuantisedFormat, number> = { int8: 0.04, nf4: 0.5, int4: 0.5 };

  it.each(QUANTISED_FORMATS)('%s: no number is far away', async (format) => {
    const [reader, original] = [await openWeights(folder(format)), await openWeights(tiny)];
    let rounded = 0;
    for (const { name, shape, quantised } of reader.entries.values()) {
      const [values, exact] = [await reader.readFloat32(name), await original.readFloat32(name)];
      if (!quantised) {
        expect(values, name).toEqual(exact);
        continue;
      }
      rounded++;
      const length = quantised.kind === 'BNB4' ? 64 : shape[1]!;
      // In parts of the largest number with one scale: int8 has 127 levels, the levels of nf4 are at most 0.304 apart, and the step of int4
      // with the least squared error may cut off the largest numbers.
      const most = { BNB8: 0.5 / 127, BNB4: 0.153, INT4: 0.25 }[quantised.kind];
      for (let i = 0; i < exact.length; i += length) {
        const part = exact.subarray(i, i + length);
        const limit = part.reduce((m, x) => Math.max(m, Math.abs(x)), 0) * most * 1.001;
        part.forEach((x, j) => expect(Math.abs(x - values[i + j]!)).toBeLessThanOrEqual(limit));
      }
    }
    expect(rounded).toBeGreaterThan(10);
    await Promise.all([reader.close(), original.close()]);
  });

  describe.each(backends)('on %s', (backend) => {
    it.each(QUANTISED_FORMATS)(
      '%s is loaded, with the same numbers and logits everywhere',
      async (format) => {
        await useBackend(backend);
        const model = await loadFolder(folder(format), { store_from: 1 });
        expect([...flatten(model.params).values()].some(isQuantised)).toBe(false);
        const reader = await openWeights(folder(format));
        for (const [name, values] of await leafValues(model.params))
          if (reader.entries.has(name)) expect(values, name).toEqual(await reader.readFloat32(name));
        await reader.close();
        const found = await logits(model);
        expect(relativeError(found, wanted)).toBeLessThan(LOSS[format]);
        if (kept && backend === 'cpu') await keep(format, found);
        dispose(model.params);
      },
    );
  });

  it.each(['int8', 'int4'] as const)('%s is multiplied in 8 bits with the precision int8', async (format) => {
    await useBackend('native');
    const plain = await loadFolder(folder(format));
    const exact = await logits(plain);
    await useBackend('native', { precision: 'int8' });
    const model = await loadFolder(folder(format), { int8: {} });
    const found = await logits(model);
    expect(relativeError(found, exact)).toBeLessThan(0.05);
    expect(relativeError(found, exact)).toBeGreaterThan(1e-5);
    dispose([plain.params, model.params]);
    await useBackend('native');
  });

  it('describes the file for transformers: every linear layer that is not quantised is listed', async () => {
    const { quantization_config: eight } = await configOf('int8');
    expect(eight).toMatchObject({ quant_method: 'bitsandbytes', load_in_8bit: true, llm_int8_threshold: 6 });
    expect(await readFile(join(folder('int8'), 'config.json'), 'utf8')).toContain(
      '"llm_int8_threshold": 6.0',
    );
    const skipped = eight['llm_int8_skip_modules'] as string[];
    expect(skipped).toEqual(expect.arrayContaining(['language_projection', 'lm_head']));
    const kinds = await quantisedOf('int8');
    for (const [name, kind] of kinds)
      if (/layers?\.\d+\..*(fc\d|proj|qkv|query|key|value|dense)\.weight$/.test(name))
        expect(skipped.includes(name.replace('.weight', '')), name).toBe(kind === undefined);
    expect([...kinds].some(([name, kind]) => name.startsWith('qformer.') && kind)).toBe(false);
    expect((await configOf('nf4')).quantization_config).toMatchObject({
      load_in_4bit: true,
      bnb_4bit_quant_type: 'nf4',
      bnb_4bit_compute_dtype: 'float32',
    });
    expect((await configOf('int4')).quantization_config).toEqual({
      quant_method: 'blip2',
      bits: 4,
      version: 1,
    });
  });

  it('keeps what should stay exact, and 8 bits where 4 are too few', async () => {
    const [one, other] = [...(await quantisedOf('int4')).entries()]
      .filter(([, kind]) => kind === 'INT4')
      .map(([name]) => name);
    const written = await write({ format: 'int4', exact: [one!], eight: [other!] }, 'mixed');
    expect([written.get(one!), written.get(other!)]).toEqual([undefined, 'int8']);
    const kinds = await quantisedOf('mixed');
    expect([kinds.get(one!), kinds.get(other!)]).toEqual([undefined, 'BNB8']);
    expect(new Set(kinds.values())).toEqual(new Set([undefined, 'BNB8', 'INT4']));
  });
});

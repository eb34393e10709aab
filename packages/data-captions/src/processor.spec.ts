import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { modelFolder, preprocessor, TEXT_IDS, TINY_IDS, vocab } from '../spec/model-folder';
import { collate, promptBatch } from './collate';
import { loadProcessor } from './load-processor';

describe('loadProcessor', () => {
  it('reads the ids and sizes of a checkpoint folder', async () => {
    const dir = await modelFolder();
    const processor = await loadProcessor(dir, TEXT_IDS);
    expect(processor).toMatchObject({ bos: 2, pad: 1, eos: vocab['Ċ'], imageToken: 4, numQueryTokens: 3 });
    expect(processor.imageSize).toEqual({ height: 4, width: 6 });
    const image = join(dir, 'x.png');
    await writeFile(
      image,
      await sharp({ create: { width: 9, height: 9, channels: 3, background: '#fff' } })
        .png()
        .toBuffer(),
    );
    const pixels = await processor.pixels(image);
    expect(pixels).toHaveLength(3 * 4 * 6);
    expect(pixels[0]).toBeCloseTo((1 - 0.48145466) / 0.26862954, 6);
    expect(processor.decode([4, 4, 2, vocab['Ġred'], vocab['Ġdog'], vocab['Ċ'], 1])).toBe('red dog');
  });

  it('falls back to processor_config.json, and to the tokenizer for the image token', async () => {
    const dir = await modelFolder({
      'preprocessor_config.json': undefined,
      'processor_config.json': { image_processor: preprocessor },
    });
    const processor = await loadProcessor(dir, { ...TEXT_IDS, imageToken: undefined });
    expect(processor).toMatchObject({ imageSize: { height: 4, width: 6 }, imageToken: 4 });
  });

  it.each<[string, Record<string, unknown>, RegExp]>([
    [
      'a cut-off preprocessor_config.json',
      { 'preprocessor_config.json': '{"a"' },
      /preprocessor_config\.json: expected JSON/,
    ],
    [
      'no preprocessor_config.json',
      { 'preprocessor_config.json': undefined },
      /preprocessor_config\.json: there is no such file/,
    ],
    ['no tokenizer', { 'vocab.json': undefined }, /no tokenizer: expected tokenizer\.json/],
  ])('%s', async (_, replace, message) => {
    await expect(modelFolder(replace).then((dir) => loadProcessor(dir, TEXT_IDS))).rejects.toThrow(message);
  });

  it('refuses a folder that does not exist', async () => {
    await expect(loadProcessor('/gone', TEXT_IDS)).rejects.toThrow(/\/gone: there is no such folder/);
  });
});

// A tiny checkpoint with golden numbers of transformers: tools/parity/make_blip2_fixture.py.
const fixtures = fileURLToPath(new URL('../../blip2/fixtures', import.meta.url));
interface Golden {
  cases: Record<string, { shape: number[]; input_ids: number[]; attention_mask: number[]; labels: number[] }>;
  token_ids: Record<string, number[]>;
  decoded: Record<string, string>;
  prompts: string[];
  targets: string[];
  pixel_values: Record<string, string>;
}

describe('a checkpoint written by transformers', () => {
  const golden = () => JSON.parse(readFileSync(join(fixtures, 'golden.json'), 'utf8')) as Golden;
  const load = () => loadProcessor(join(fixtures, 'tiny'), TINY_IDS);
  const plain = (rows: object) =>
    Object.fromEntries(Object.entries(rows).map(([k, v]) => [k, Array.from(v as Iterable<number>)]));

  it('has the same token ids and texts', async () => {
    const { tokenizer } = await load();
    const { token_ids, decoded } = golden();
    for (const [text, ids] of Object.entries(token_ids)) {
      expect(tokenizer.encode(text), text).toEqual(ids);
      expect(tokenizer.decode(ids, false)).toBe(decoded[text]);
    }
  });

  it('has the same training rows', async () => {
    const { cases, prompts, targets } = golden();
    const pairs = [0, 1].map((i) => ({ prompt: prompts[i], target: targets[i], source: String(i) }));
    const { shape, input_ids, attention_mask, labels } = cases.right;
    expect(plain(collate(pairs, await load()))).toEqual({ shape, input_ids, attention_mask, labels });
  });

  it('pads prompts on the left like the processor of transformers', async () => {
    const { prompts } = golden();
    const processor = await load();
    const { input_ids, attention_mask, shape } = promptBatch(processor, prompts);
    const encoded = prompts.map((p) => [2, ...processor.tokenizer.encode(p)]);
    const longest = Math.max(...encoded.map((ids) => ids.length));
    const rows = encoded.map((ids) => [
      ...Array<number>(4).fill(58),
      ...Array<number>(longest - ids.length).fill(1),
      ...ids,
    ]);
    expect(shape).toEqual([3, 4 + longest]);
    expect(Array.from(input_ids)).toEqual(rows.flat());
    expect(Array.from(attention_mask)).toEqual(rows.flat().map((id) => Number(id !== 1)));
  });

  it('has the same pixel values, bit for bit', async () => {
    const processor = await load();
    for (const [name, base64] of Object.entries(golden().pixel_values)) {
      const bytes = Uint8Array.from(Buffer.from(base64, 'base64'));
      expect(await processor.pixels(join(fixtures, 'images', name)), name).toEqual(
        new Float32Array(bytes.buffer),
      );
    }
  });
});

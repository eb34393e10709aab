/**
 * Damaged and hostile tokenizer and preprocessing files of a checkpoint: each makes a processor that works, or is refused
 * with a DataError; nothing crashes, hangs or takes unbounded memory. `npm run sweep` tries thousands.
 */
import { cp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { countOf, damaged, LONG, misshapenJson, readOrRefused, reportAtTheEnd, SCALE } from '../spec/hostile';
import { modelFolder, temporaryFolder, TEXT_IDS, TINY_IDS } from '../spec/model-folder';
import { collate, promptBatch } from './collate';
import { loadProcessor } from './load-processor';
import type { TextIds } from './processor';

reportAtTheEnd();
const tiny = fileURLToPath(new URL('../../blip2/fixtures/tiny', import.meta.url));
const image = await readFile(fileURLToPath(new URL('../fixtures/images/rgb-37x23.png', import.meta.url)));

/** Loads a processor and uses it as training and generation do. */
async function use(dir: string, ids: TextIds): Promise<void> {
  const processor = await loadProcessor(dir, ids);
  const pair = { prompt: 'Question: a cat? Answer:', target: 'a red dog \u00e9', source: 'row 1' };
  const { input_ids } = collate([pair], processor);
  processor.decode([...input_ids]);
  promptBatch(processor, ['a cat', '']);
  await processor.pixels(image);
}

describe('files of a checkpoint', () => {
  const FILES: [folder: () => Promise<string>, files: string[], ids: TextIds][] = [
    [async () => tiny, ['tokenizer.json', 'tokenizer_config.json', 'preprocessor_config.json'], TINY_IDS],
    [() => modelFolder(), ['vocab.json', 'merges.txt', 'preprocessor_config.json'], TEXT_IDS],
  ];
  it('damaged or misshapen: used or refused', { timeout: LONG }, async () => {
    for (const [from, names, ids] of FILES) {
      const dir = await temporaryFolder();
      await cp(await from(), dir, { recursive: true });
      for (const [f, name] of names.entries()) {
        const file = join(dir, name);
        const good = await readFile(file);
        for (let i = 0; i < 30 * SCALE; i++) {
          const seed = 1e6 + 1e5 * f + i;
          const isJson = i % 3 > 0 && name.endsWith('.json');
          const bad = isJson ? misshapenJson(JSON.parse(good.toString()), seed) : damaged(good, i, seed);
          await writeFile(file, bad);
          await readOrRefused(name, `${isJson ? 'shape' : 'bytes'} ${i}`, () => use(dir, ids));
        }
        await writeFile(file, good);
      }
      await use(dir, ids);
    }
    expect(countOf('').read).toBeGreaterThan(50);
    expect(countOf('').refused).toBeGreaterThan(50);
  });

  it('of unbounded memory or time are refused', { timeout: LONG }, async () => {
    const deep = '['.repeat(200_000) + ']'.repeat(200_000);
    const side = { size: { height: 1e6, width: 1e6 } };
    const tokenizer = JSON.parse(await readFile(join(tiny, 'tokenizer.json'), 'utf8')) as object;
    const replace = { type: 'Replace', pattern: { Regex: '([^!]+)+!' }, content: '' };
    const endless = [
      { pre_tokenizer: { ...replace, type: 'Split', behavior: 'Isolated', invert: false } },
      { normalizer: replace },
      { decoder: { type: 'Sequence', decoders: [{ type: 'ByteLevel' }, { type: 'Fuse' }, replace] } },
    ];
    const cases: Record<string, unknown>[] = [
      ...endless.map((own) => ({ 'tokenizer.json': { ...tokenizer, ...own } })),
      { 'preprocessor_config.json': side },
      { 'preprocessor_config.json': { size: 100_000 } },
      { 'preprocessor_config.json': `{"size": ${deep}}` },
      { 'tokenizer.json': deep },
      { 'tokenizer.json': `{"model": ${deep}}` },
      { 'vocab.json': `{"a": ${deep}}` },
    ];
    for (const replace of cases) {
      const dir = await modelFolder();
      for (const [name, content] of Object.entries(replace))
        await writeFile(join(dir, name), typeof content === 'string' ? content : JSON.stringify(content));
      const what = JSON.stringify(replace).slice(-80);
      expect(await readOrRefused('without bound', what, () => use(dir, TEXT_IDS)), what).toBe(false);
    }
  });
});

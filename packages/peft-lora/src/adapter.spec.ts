import { readFile } from 'node:fs/promises';
import { useBackend } from '@blip2/nn/node';
import { readSafetensors, safetensorsBytes } from '@blip2/weights';
import type { WeightReader } from '@blip2/weights';
import { describe, expect, it } from 'vitest';
import { baseTree, fixture, readJson } from '../spec/fixtures';
import { CONFIG, EXTRA, WEIGHTS, readAdapter } from './adapter';
import type { Adapter } from './adapter';
import { adapterFiles } from './adapter-files';
import { loadAdapter } from './adapter-folder';
import { applyAdapter } from './apply';
import { parseLoraConfig } from './config';

await useBackend('cpu');
const base = await baseTree();
const queries = { shape: [1, 4, 12], data: Float32Array.from({ length: 48 }, (_, i) => i / 8) };

/** The result of `adapterFiles` as bytes. */
async function inMemory(adapter: Adapter) {
  const files = adapterFiles(applyAdapter(base, adapter, { trainable: true }), adapter.config);
  const readers = new Map<string, WeightReader>();
  for (const [name, content] of files)
    if (typeof content !== 'string')
      readers.set(name, await readSafetensors(await safetensorsBytes(content), name));
  const config = parseLoraConfig(JSON.parse(files.get(CONFIG) as string), CONFIG);
  return { names: [...files.keys()], config, weights: readers.get(WEIGHTS)! };
}

describe('an adapter in memory', () => {
  it('has the same files as a folder, and can be read from them', async () => {
    const onDisk = await loadAdapter(fixture('mixed'));
    const tensors = new Map([...onDisk.tensors, ['query_tokens', queries]]);
    const source = await inMemory({ ...onDisk, tensors });
    expect(source.names).toEqual([WEIGHTS, 'README.md', CONFIG]);
    const again = await readAdapter(source);
    expect(again.where).toBe('adapter');
    expect(again.lora).toEqual(onDisk.lora);
    expect(again.tensors).toEqual(tensors);
  });

  it('is read from the bytes of files by PEFT', async () => {
    const [bytes, json] = await Promise.all(
      [WEIGHTS, CONFIG].map((name) => readFile(fixture(`adapter/${name}`))),
    );
    const weights = await readSafetensors(bytes!, WEIGHTS);
    const config = parseLoraConfig(JSON.parse(json!.toString()), CONFIG);
    const { lora } = await readAdapter({ config, weights });
    expect(lora).toEqual((await loadAdapter(fixture('adapter'))).lora);
  });

  it('of version 0.1 is refused without the second file that its configuration requires', async () => {
    const mixed = await readJson(fixture(`mixed/${CONFIG}`));
    const onDisk = await loadAdapter(fixture('mixed'));
    const { weights } = await inMemory(onDisk);
    const config = parseLoraConfig({ ...mixed, extra_trainables: EXTRA }, CONFIG);
    const read = readAdapter({ config, weights });
    await expect(read).rejects.toThrow(`does not fit its ${CONFIG}:\n  missing ${EXTRA}`);
  });
});

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { TensorToWrite } from './encode';
import { safetensorsBytes } from './encode';
import { readSafetensors } from './reader';
import { sameValues } from './same';
import { writeSafetensors } from './writer';

const tensors: TensorToWrite[] = [
  { name: 'half', dtype: 'F16', shape: [2, 2], data: Float32Array.of(1, -2, 0.5, 65504) },
  { name: 'π', dtype: 'F32', shape: [3], data: Float32Array.of(1, 2, 3) },
  { name: 'ids', dtype: 'I64', shape: [2], data: Int32Array.of(-1, 7) },
];
let dir: string;
beforeAll(async () => void (dir = await mkdtemp(join(tmpdir(), 'weights-'))));
afterAll(() => rm(dir, { recursive: true }));

describe('safetensors in memory', () => {
  it('are the bytes of the file', async () => {
    const file = join(dir, 'a.safetensors');
    await writeSafetensors(file, tensors);
    expect(Buffer.compare(await readFile(file), await safetensorsBytes(tensors))).toBe(0);
  });

  it('are read as from a file', async () => {
    const reader = await readSafetensors(await safetensorsBytes(tensors));
    expect([...reader.entries.keys()].sort()).toEqual(['half', 'ids', 'π']);
    expect([...(await reader.readFloat32('half'))]).toEqual([1, -2, 0.5, 65504]);
    expect([...(await reader.readFloat32('ids'))]).toEqual([-1, 7]);
    expect(reader.span('half')).toEqual({ bytes: await reader.readRaw('half') });
    expect([...new Float32Array((await reader.readRaw('π', 1, 3)).slice().buffer)]).toEqual([2, 3]);
    await reader.close();
    await expect(reader.readFloat32('half')).rejects.toThrow('read after close()');
  });

  it('are read from a Blob by pieces, and a piece that cannot be read names its tensor', async () => {
    const blob = new Blob([Uint8Array.from(await safetensorsBytes(tensors))]);
    const read: number[] = [];
    const counted = Object.assign(blob, {
      slice: (begin: number, end: number) => {
        read.push(end - begin);
        return Blob.prototype.slice.call(blob, begin, end);
      },
    });
    const reader = await readSafetensors(counted, 'dropped');
    read.length = 0;
    expect([...(await reader.readFloat32('half'))]).toEqual([1, -2, 0.5, 65504]);
    expect([...new Float32Array((await reader.readRaw('π', 1, 3)).slice().buffer)]).toEqual([2, 3]);
    expect(read).toEqual([8, 8]);
    expect(reader.span('half')).toBeUndefined();
    Object.assign(counted, { slice: () => ({ arrayBuffer: () => Promise.reject(new Error('it is gone')) }) });
    await expect(reader.readFloat32('half')).rejects.toThrow('dropped: half: cannot be read: it is gone');
    await expect(readSafetensors(new Blob(['short']), 'dropped')).rejects.toThrow('at least 8 bytes');
  });

  it('are rejected when truncated, with the name in the error', async () => {
    const bytes = await safetensorsBytes(tensors);
    await expect(readSafetensors(bytes.subarray(0, -1), 'fetched')).rejects.toThrow('fetched: broken');
    await expect(readSafetensors(bytes.subarray(0, 5), 'fetched')).rejects.toThrow('at least 8 bytes');
  });
});

describe('sameValues', () => {
  it('compares every byte, also those after the last whole word', async () => {
    const same = async (...pair: [number[], number[]]) => {
      const stored = pair.map((values, i): TensorToWrite => {
        return { name: 'ab'[i]!, dtype: 'U8', shape: [values.length], data: Uint8Array.from(values) };
      });
      return sameValues(await readSafetensors(await safetensorsBytes(stored)), 'a', 'b');
    };
    expect(await same([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6])).toBe(true);
    expect(await same([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7])).toBe(false);
    expect(await same([1, 2, 3, 4, 5, 6], [1, 2, 0, 4, 5, 6])).toBe(false);
  });
});

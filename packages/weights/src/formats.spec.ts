/** Files that people put where weights are expected: each is named, with what to do. */
import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openWeights } from './files';
import { openRegular, readJsonFile, readRegular } from './regular-file';
import { openTorchCheckpoint } from './torch-checkpoint';

let dir: string;
beforeEach(async () => void (dir = await mkdtemp(join(tmpdir(), 'formats-'))));
afterEach(() => rm(dir, { recursive: true }));

const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${'0'.repeat(64)}\nsize 9\n`;

describe('a file that is not safetensors', () => {
  it.each<[string, string, RegExp]>([
    ['a Git LFS pointer', pointer, /found a Git LFS pointer.*git lfs pull/],
    [
      'a web page',
      '<!DOCTYPE html><html><head><title>Sign in</title>',
      /found a web page, so the download failed/,
    ],
    ['an error of a server', '{"error":"Repository not found"}', /found JSON text, perhaps a server's error/],
    ['a text of a server', 'Invalid username or password.', /found an error message of a server/],
    ['GGUF', 'GGUF\x03\0\0\0\x10\0\0\0', /found GGUF/],
    ['a zip file', 'PK\x03\x04\0\0\0\0\0\0', /found a zip file, as torch\.save writes/],
    ['a pickle', '\x80\x02}q\0(X\x05\0\0\0', /found a pickle/],
    ['HDF5', '\x89HDF\r\n\x1a\n\0\0\0\0', /found HDF5.*from_tf/],
    ['a compressed file', '\x1f\x8b\x08\0\0\0\0\0\0\0', /found a compressed file; unpack it/],
    ['zeros', '\0'.repeat(4096), /found zeros, so the download was cut off/],
    ['nothing', '', /found an empty file/],
  ])('%s', async (_, content, expected) => {
    const file = join(dir, 'model.safetensors');
    await writeFile(file, content, 'latin1');
    await expect(openWeights(dir)).rejects.toThrow(expected);
    await expect(openWeights(file)).rejects.toThrow(expected);
  });

  it('is named too where a checkpoint of torch.save is expected', async () => {
    const file = join(dir, 'lavis.pth');
    await writeFile(file, pointer);
    await expect(openTorchCheckpoint(file)).rejects.toThrow(/found a Git LFS pointer/);
  });

  it('is named where JSON is expected', async () => {
    const file = join(dir, 'config.json');
    await writeFile(file, pointer);
    await expect(readJsonFile(file)).rejects.toThrow(/expected JSON, found a Git LFS pointer/);
    await writeFile(file, '{"a": 1');
    await expect(readJsonFile(file)).rejects.toThrow(/^expected JSON: /);
    await writeFile(file, '\uFEFF{"a": 1}');
    expect(await readJsonFile(file)).toEqual({ a: 1 });
  });
});

describe('a folder without safetensors', () => {
  it.each<[string, string[], RegExp]>([
    ['torch.save', ['config.json', 'pytorch_model.bin'], /pytorch_model\.bin, a checkpoint of torch\.save/],
    ['shards of torch.save', ['pytorch_model-00001-of-00002.bin'], /a checkpoint of torch\.save/],
    ['an adapter', ['adapter_config.json', 'adapter_model.safetensors'], /an adapter: pass it as --adapter/],
    [
      'shards without their index',
      ['model-00001-of-00002.safetensors'],
      /shards without model\.safetensors\.index/,
    ],
    ['FSDP', ['__0_0.distcp', '.metadata'], /shards of FSDP.*merge-weights/],
    ['DeepSpeed', ['global_step500', 'zero_to_fp32.py', 'latest'], /shards of DeepSpeed.*zero_to_fp32/],
    ['GGUF', ['blip2-q4.gguf'], /GGUF/],
    ['ONNX', ['model.onnx'], /ONNX/],
    ['TensorFlow', ['tf_model.h5'], /TensorFlow.*from_tf/],
    ['Flax', ['flax_model.msgpack'], /Flax.*from_flax/],
    ['LAVIS', ['checkpoint_best.pth'], /run blip2 import-lavis/],
    [
      'a file of another name',
      ['blip2.safetensors'],
      /blip2\.safetensors; rename the file of the whole model/,
    ],
    ['checkpoints of a Trainer', ['checkpoint-500'], /name one of these folders/],
    ['nothing', ['config.json'], /found no weight files/],
  ])('%s', async (_, names, expected) => {
    for (const name of names) await writeFile(join(dir, name), '');
    await expect(openWeights(dir)).rejects.toThrow(expected);
  });
});

describe('only regular files are opened, within a size', () => {
  it('a named pipe is refused at once', async () => {
    const pipe = join(dir, 'model.safetensors');
    execFileSync('mkfifo', [pipe]);
    await expect(openWeights(dir)).rejects.toThrow(/found a pipe, socket or device/);
    await expect(openTorchCheckpoint(pipe)).rejects.toThrow(/found a pipe, socket or device/);
    await expect(readJsonFile(pipe)).rejects.toThrow(/found a pipe, socket or device/);
  });

  it('a folder and a device are refused', async () => {
    await mkdir(join(dir, 'folder'));
    await expect(openRegular(join(dir, 'folder'))).rejects.toThrow(/found a folder/);
    await expect(readRegular('/dev/zero')).rejects.toThrow(/found a pipe, socket or device/);
  });

  it('a larger file is not read', async () => {
    await writeFile(join(dir, 'a'), '12345');
    await expect(readRegular(join(dir, 'a'), 4)).rejects.toThrow('expected at most 4 bytes, found 5');
    expect((await readRegular(join(dir, 'a'), 5)).toString()).toBe('12345');
  });
});

/** Files of a run and its settings that are no files, or never end: refused at once. */
import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { parseConfig } from '../config';
import { fromYaml, readConfigFile } from '../config/yaml';
import { partsReader } from '../evaluation/score';
import { readRun, textOf } from '../report/run-files';
import { findCheckpoint } from './checkpoint';
import { runLog } from './folder';
import { baseFingerprint } from './identity';

let dir: string;
beforeEach(async () => void (dir = await mkdtemp(join(tmpdir(), 'files-'))));
afterEach(() => rm(dir, { recursive: true }));
const pipe = (...path: string[]) => {
  const file = join(dir, ...path);
  execFileSync('mkfifo', [file]);
  return file;
};
const NOT_REGULAR = /found a pipe, socket or device/;

it('a named pipe as settings', async () => {
  await expect(readConfigFile(pipe('fit.yaml'))).rejects.toThrow(NOT_REGULAR);
});

it('a named pipe as state of a checkpoint', async () => {
  await mkdir(join(dir, 'checkpoints', 'step-000004'), { recursive: true });
  pipe('checkpoints', 'step-000004', 'state.json');
  const { found, damaged } = await findCheckpoint(dir);
  expect(found).toBeUndefined();
  expect(damaged[0]!.why).toMatch(NOT_REGULAR);
});

it('a named pipe as tokenizer of the base', async () => {
  pipe('tokenizer.json');
  await expect(baseFingerprint(dir)).rejects.toThrow(NOT_REGULAR);
});

it.each(['metrics.jsonl', 'samples.jsonl', 'environment.json', 'results.json'])(
  'a named pipe, a folder or a file of 10 GB as %s of a run',
  async (name) => {
    await writeFile(join(dir, 'config.yaml'), 'model: m\ndata: d\n');
    const file = pipe(name);
    await expect(readRun(dir)).rejects.toThrow(NOT_REGULAR);
    await rm(file);
    await mkdir(file);
    await expect(readRun(dir)).rejects.toThrow(/cannot be read: expected a regular file, found a folder/);
    await rm(file, { recursive: true });
    await writeFile(file, '');
    await truncate(file, 1e10);
    await expect(readRun(dir)).rejects.toThrow(/expected at most 400000000 bytes, found 10000000000/);
  },
);

it('the beginning of a log of 10 GB', async () => {
  await writeFile(join(dir, 'metrics.jsonl'), '{"step":1}\n');
  await truncate(join(dir, 'metrics.jsonl'), 1e10);
  expect(await textOf(join(dir, 'metrics.jsonl'), 11)).toBe('{"step":1}\n');
});

it.each(['metrics.jsonl', 'samples.jsonl', 'events.out.tfevents.blip2'])(
  'a named pipe as %s to append to',
  async (name) => {
    await expect(runLog(pipe(name)).cutTo(0)).rejects.toThrow(/expected a regular file to append to/);
  },
);

it('a prompt that no model has room for', () => {
  const read = (length: number) => parseConfig({ model: 'm', data: 'd', prompt: 'a'.repeat(length) });
  expect(read(10_000).prompt).toHaveLength(10_000);
  expect(() => read(10_001)).toThrow(
    /prompt: expected a non-empty text of at most 10000 characters \(10001\)/,
  );
});

it('settings that contain themselves, or are larger than settings are', async () => {
  expect(() => fromYaml('a: &x [*x]')).toThrow(/not readable as YAML: .*contains itself/);
  await writeFile(join(dir, 'fit.yaml'), `prompt: ${'a'.repeat(3_000_000)}`);
  await expect(readConfigFile(join(dir, 'fit.yaml'))).rejects.toThrow(/expected at most 2000000 bytes/);
});

it('a pattern of parts that never ends', () => {
  const read = partsReader('(.|.|.)*!(?<x>z)');
  expect(() => read('a'.repeat(40))).toThrow(/parts_pattern: .*stopped after 1000 ms/);
});

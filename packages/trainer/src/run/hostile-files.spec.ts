/** Files of a run and its settings that are no files, or never end: refused at once. */
import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { fromYaml, readConfigFile } from '../config/yaml';
import { partsReader } from '../evaluation/score';
import { findCheckpoint } from './checkpoint';
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

it('settings that contain themselves, or are larger than settings are', async () => {
  expect(() => fromYaml('a: &x [*x]')).toThrow(/not readable as YAML: .*contains itself/);
  await writeFile(join(dir, 'fit.yaml'), `prompt: ${'a'.repeat(3_000_000)}`);
  await expect(readConfigFile(join(dir, 'fit.yaml'))).rejects.toThrow(/expected at most 2000000 bytes/);
});

it('a pattern of parts that never ends', () => {
  const read = partsReader('(.|.|.)*!(?<x>z)');
  expect(() => read('a'.repeat(40))).toThrow(/parts_pattern: .*stopped after 1000 ms/);
});

/** Files of a model folder that are no files: refused at once, never waited for. */
import { execFileSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { readText } from './formats/encoding';
import { tokenSplits } from './formats/token-splits';
import { readImage } from './image-source';
import { loadTokenizer, readJson } from './tokenizer-files';

let dir: string;
beforeEach(async () => void (dir = await mkdtemp(join(tmpdir(), 'regular-'))));
afterEach(() => rm(dir, { recursive: true }));

it.each<[string, (file: string) => Promise<unknown>]>([
  ['tokenizer.json', () => loadTokenizer(dir, undefined)],
  ['preprocessor_config.json', (file) => readJson(file, true)],
  ['photo.txt', (file) => readText(file)],
  ['photo.png', readImage],
])('a named pipe as %s is refused', async (name, read) => {
  const file = join(dir, name);
  execFileSync('mkfifo', [file]);
  await expect(read(file)).rejects.toThrow(/it is not a regular file/);
});

it("a named pipe as Flickr8k's list of pictures is passed over", () => {
  execFileSync('mkfifo', [join(dir, 'Flickr_8k.trainImages.txt')]);
  const rows = [{ source: 'x', values: {}, bases: [] }];
  expect(tokenSplits(rows, join(dir, 'Flickr8k.token.txt'))).toBe(rows);
});

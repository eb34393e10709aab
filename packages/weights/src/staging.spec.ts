import { existsSync } from 'node:fs';
import { mkdtemp, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeFolders } from './staging';

describe('makeFolders', () => {
  let dir: string;
  beforeAll(async () => void (dir = await mkdtemp(join(tmpdir(), 'folders-'))));
  afterAll(() => rm(dir, { recursive: true }));

  it('makes a folder and those above it, also when several processes do, and through a link', async () => {
    const deep = join(dir, 'a', 'b', 'c');
    await Promise.all(Array.from({ length: 8 }, () => makeFolders(deep)));
    expect((await stat(deep)).isDirectory()).toBe(true);
    await symlink(join(dir, 'a'), join(dir, 'link'));
    await makeFolders(join(dir, 'link', 'b'));
    await makeFolders(join(dir, 'link', 'd'));
    expect((await stat(join(dir, 'a', 'd'))).isDirectory()).toBe(true);
  });

  it('ends with an error where no folder can be made', async () => {
    const file = join(dir, 'file');
    await writeFile(file, '');
    await expect(makeFolders(file)).rejects.toThrow('EEXIST');
    await expect(makeFolders(join(file, 'a', 'b'))).rejects.toThrow('ENOTDIR');
    // mkdir's `recursive` never ends here
    if (existsSync('/proc/self')) await expect(makeFolders('/proc/none/a')).rejects.toThrow('ENOENT');
  });
});

import { mkdir, mkdtemp, readFile, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { MODEL_FOLDER, newFolder, replaceFolder } from './folder';
import { lockFile } from './lock';
import { draftOf, writeFileAtomic } from './staging';

let root: string;
let dir: string;
const roots: string[] = [];
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'folders-'));
  roots.push(root);
  dir = join(root, 'model');
});
afterAll(() => Promise.all(roots.map((made) => rm(made, { recursive: true }))));

const write =
  (...names: string[]) =>
  async (at: string) => {
    for (const name of names) await writeFileAtomic(join(at, name), name);
  };
const model = write('config.json', 'model.safetensors');
const namesIn = async (at: string) => (await readdir(at)).sort();

describe('newFolder', () => {
  it('appears complete, in a new, an empty or a linked folder, and leaves nothing else', async () => {
    await mkdir(join(root, 'empty'));
    await mkdir(join(root, 'far'));
    await symlink(join(root, 'far'), join(root, 'link'));
    for (const name of ['a/b/new', 'empty', 'link']) {
      const at = join(root, name);
      await newFolder(at, MODEL_FOLDER, async (draft) => {
        await model(draft);
        expect(await namesIn(at).catch(() => [])).toEqual([]);
      });
      expect(await namesIn(at)).toEqual(['config.json', 'model.safetensors']);
    }
    expect(await namesIn(root)).toEqual(['a', 'empty', 'far', 'link']);
  });

  it('refuses a folder with something in it, also when that came while it was filled', async () => {
    await mkdir(dir);
    await writeFile(join(dir, 'notes'), '');
    await expect(newFolder(dir, MODEL_FOLDER, model)).rejects.toThrow(
      /model: expected a new or empty folder/,
    );
    const late = join(root, 'late');
    const filling = newFolder(late, MODEL_FOLDER, async (at) => {
      await model(at);
      await write('notes')(await mkdir(late).then(() => late));
    });
    await expect(filling).rejects.toThrow(/late: expected a new or empty folder/);
    expect([await namesIn(late), await namesIn(root)]).toEqual([['notes'], ['late', 'model']]);
  });

  it('leaves nothing after a failure', async () => {
    const failing = newFolder(dir, MODEL_FOLDER, async (at) => {
      await model(at);
      throw new Error('no room');
    });
    await expect(failing).rejects.toThrow('no room');
    expect(await namesIn(root)).toEqual([]);
  });

  it('removes what a killed process left', async () => {
    const left = draftOf(dir);
    await mkdir(left);
    await model(left);
    await newFolder(dir, MODEL_FOLDER, model);
    expect(await namesIn(root)).toEqual(['model']);
  });

  it('has one writer at a time', async () => {
    const release = await lockFile(join(root, '.model.lock'));
    await expect(newFolder(dir, MODEL_FOLDER, model)).rejects.toThrow(/already writing here/);
    await release();
    await newFolder(dir, MODEL_FOLDER, model);
  });
});

describe('replaceFolder', () => {
  it('replaces its files, removes those of an earlier save, and keeps the others', async () => {
    await replaceFolder(dir, MODEL_FOLDER, write('config.json', 'model-00001-of-00001.safetensors'));
    await writeFile(join(dir, 'README.md'), '');
    await writeFile(join(dir, 'config.json'), 'old');
    await replaceFolder(dir, MODEL_FOLDER, model);
    expect(await namesIn(dir)).toEqual(['README.md', 'config.json', 'model.safetensors']);
    expect(await readFile(join(dir, 'config.json'), 'utf8')).toBe('config.json');
  });

  it('keeps the old files when the new ones cannot be made', async () => {
    await replaceFolder(dir, MODEL_FOLDER, model);
    await expect(replaceFolder(dir, MODEL_FOLDER, () => Promise.reject(new Error('no')))).rejects.toThrow();
    expect(await namesIn(dir)).toEqual(['config.json', 'model.safetensors']);
  });
});

describe('writeFileAtomic', () => {
  it('removes the temporary file of a killed process, and no other', async () => {
    const name = (pid: number) => draftOf(join(root, 'a.json')).replace(`-${process.pid}-`, `-${pid}-`);
    await writeFile(name(99999999), '');
    await writeFile(name(process.ppid), '');
    await writeFileAtomic(join(root, 'a.json'), '{}');
    expect(await namesIn(root)).toEqual([expect.stringContaining(`-${process.ppid}-`), 'a.json']);
  });
});

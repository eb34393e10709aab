import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { fromYaml, parseConfig } from '../config';
import { claimRunFolder, RunFolderError, runLog } from './folder';

let root: string;
beforeEach(async () => void (root = await mkdtemp(join(tmpdir(), 'blip2-runs-'))));

const configFor = (output_dir: string) => parseConfig({ model: 'm', data: 'd', output_dir });

describe('claimRunFolder', () => {
  it('gives runs that start at the same time a folder each', async () => {
    const wanted = join(root, 'deep', 'run');
    const claims = Array.from({ length: 12 }, () =>
      claimRunFolder(configFor(wanted), { wanted, ifExists: 'number' }),
    );
    const dirs = await Promise.all(claims);
    expect(new Set(dirs).size).toBe(12);
    expect(dirs.sort()).toEqual(
      [wanted, ...Array.from({ length: 11 }, (_, i) => `${wanted}-${i + 2}`)].sort(),
    );
    for (const dir of dirs)
      expect(fromYaml(await readFile(join(dir, 'config.yaml'), 'utf8'))).toEqual(configFor(dir));
    expect((await readdir(join(root, 'deep'))).length).toBe(12);
  });

  it('lets one run have a named folder and refuses the others, also an empty folder that was there', async () => {
    for (const name of ['new', 'empty', 'link']) {
      const wanted = join(root, name);
      if (name === 'empty') await mkdir(wanted);
      if (name === 'link') await symlink(await mkdtemp(join(tmpdir(), 'blip2-runs-')), wanted);
      const results = await Promise.allSettled(
        [1, 2, 3].map(() => claimRunFolder(configFor(wanted), { wanted })),
      );
      const refused = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []));
      expect(refused).toHaveLength(2);
      expect(refused[0]).toBeInstanceOf(RunFolderError);
      expect(String(refused[0])).toContain(`${name}: a run is already there`);
      expect(await readdir(wanted)).toEqual(['config.yaml', 'fit.schema.json']);
    }
  });

  it('removes what a killed process left of the same run, and nothing else', async () => {
    const dead = spawnSync(process.execPath, ['-e', '']).pid;
    const mine = ['run.tmp-', 'run.tmp-x-0', `run.tmp-${dead}`, `run.tmp-${dead}-0.old`, `a-run.tmp-${dead}-0`, `run-2.tmp-${dead}-0`, `run.tmp-${process.pid}-99`]; // prettier-ignore
    for (const name of [...mine, `run.tmp-${dead}-0`, `run.tmp-${dead}-12`]) {
      await mkdir(join(root, name));
      await writeFile(join(root, name, 'config.yaml'), '');
    }
    const wanted = join(root, 'run');
    expect(await claimRunFolder(configFor(wanted), { wanted })).toBe(wanted);
    expect((await readdir(root)).sort()).toEqual([...mine, 'run'].sort());
  });

  it('takes a folder with a slash behind its name', async () => {
    const config = configFor(join(root, 'new', 'run') + '//');
    expect(config.output_dir).toBe(join(root, 'new', 'run'));
    expect(configFor('/').output_dir).toBe('/');
    expect(await claimRunFolder(config, { wanted: config.output_dir })).toBe(config.output_dir);
  });

  it('says what the system says when the place cannot be written', async () => {
    await writeFile(join(root, 'file'), '');
    const wanted = join(root, 'file', 'run');
    await expect(claimRunFolder(configFor(wanted), { wanted })).rejects.toThrow(/ENOTDIR/);
  });
});

describe('runLog', () => {
  it('grows, and is cut back to where it was', async () => {
    const log = runLog(join(root, 'log'));
    expect(await log.flush()).toBe(0);
    await log.append('one\n');
    const at = await log.flush();
    await log.append(Buffer.from('two\n'));
    await log.cutTo(at);
    await log.cutTo(99);
    expect(await readFile(join(root, 'log'), 'utf8')).toBe('one\n');
    await runLog(join(root, 'none')).cutTo(0);
  });
});

import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { fromYaml, parseConfig } from '../config';
import { chooseRunFolder, claimRunFolder, runLock, runLog } from './folder';

let root: string;
beforeEach(async () => void (root = await mkdtemp(join(tmpdir(), 'blip2-runs-'))));

const configFor = (output_dir: string) => parseConfig({ model: 'm', data: 'd', output_dir });

describe('claimRunFolder', () => {
  it('gives runs that start at the same time a folder each', async () => {
    const wanted = join(root, 'deep', 'run');
    const claims = Array.from({ length: 12 }, () =>
      claimRunFolder(configFor(wanted), runLock(), { wanted, ifExists: 'number' }),
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
        [1, 2, 3].map(() => claimRunFolder(configFor(wanted), runLock(), { wanted })),
      );
      const refused = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []));
      expect(refused).toHaveLength(2);
      for (const error of refused)
        expect(String(error)).toMatch(
          /: a run is already there|\.lock: this process .* is already writing here/,
        );
      expect(await readdir(wanted)).toEqual(['.lock', 'config.yaml', 'fit.schema.json']);
      await expect(chooseRunFolder(wanted, {})).rejects.toThrow(`${name}: a run is already there`);
    }
  });

  it('uses a folder in which a killed process left only its lock and a temporary file', async () => {
    const wanted = join(root, 'run');
    await mkdir(wanted);
    const gone = { host: hostname(), pid: 99999999, start: '', since: '' };
    await writeFile(join(wanted, '.lock'), JSON.stringify(gone));
    await writeFile(join(wanted, '.config.yaml.0a1b2c-99999999-0.tmp'), '');
    expect(await claimRunFolder(configFor(wanted), runLock(), { wanted })).toBe(wanted);
  });

  it('passes over a folder that a process of another host has just taken', async () => {
    const wanted = join(root, 'run');
    await mkdir(wanted);
    const there = { host: 'elsewhere', pid: 1, start: '', since: '' };
    await writeFile(join(wanted, '.lock'), JSON.stringify(there));
    const dir = await claimRunFolder(configFor(wanted), runLock(), { wanted, ifExists: 'number' });
    expect(dir).toBe(`${wanted}-2`);
    await expect(claimRunFolder(configFor(wanted), runLock(), { wanted })).rejects.toThrow(/on elsewhere/);
  });

  it('takes a folder with a slash behind its name', async () => {
    const config = configFor(join(root, 'new', 'run') + '//');
    expect(config.output_dir).toBe(join(root, 'new', 'run'));
    expect(configFor('/').output_dir).toBe('/');
    expect(await claimRunFolder(config, runLock(), { wanted: config.output_dir })).toBe(config.output_dir);
  });

  it('says what the system says when the place cannot be written', async () => {
    await writeFile(join(root, 'file'), '');
    const wanted = join(root, 'file', 'run');
    await expect(claimRunFolder(configFor(wanted), runLock(), { wanted })).rejects.toThrow(/ENOTDIR/);
  });

  it('refuses a folder that cannot be made', async () => {
    await symlink(join(root, 'gone'), join(root, 'link'));
    const places = [join(root, 'link', 'run'), ...(existsSync('/proc/self') ? ['/proc/none/run'] : [])];
    for (const wanted of places)
      await expect(claimRunFolder(configFor(wanted), runLock(), { wanted })).rejects.toThrow(
        `${wanted}: expected a folder for the run: E`,
      );
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

/** `blip2 cache`, on a folder that a run filled, with weights of int8 beside it. */
import { existsSync, readdirSync } from 'node:fs';
import { mkdir, readdir, rm, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { lockFile, writeSafetensors } from '@blip2/weights/node';
import { cli, fitArgs, TINY, tinyData } from '../spec/testing';

interface Listed {
  bytes: number;
  entries: { path: string; kind: string; pictures: number; bytes: number; model?: string; in_use: boolean }[];
}
interface Pruned {
  freed_bytes: number;
  removed: { path: string }[];
  in_use: { path: string }[];
}

let data: string;
let root: string;
let features: string;
/** The locks while the run trains, and after it. */
let during: string[];
let after: string[];
const int8 = () => join(root, `int8-${'a'.repeat(32)}.safetensors`);
/** of its checksums */
const mark = () => int8().replace('.safetensors', '.checked');
const foreign = () => join(root, 'notes.txt');
const run = async <T>(...argv: string[]): Promise<T> => {
  const { code, out, err } = await cli(['cache', ...argv, '--cache-dir', root, '--json']);
  expect([code, err]).toEqual([0, '']);
  return JSON.parse(out) as T;
};
const age = (path: string, days: number) => {
  const time = new Date(Date.now() - days * 86_400_000);
  return utimes(path, time, time);
};

beforeAll(async () => {
  data = await tinyData();
  root = join(data, 'features');
  const locks = () => readdirSync(root).flatMap((name) => readdirSync(join(root, name, 'users')));
  const onStderr = (text: string) => void (text.includes('feature cache:') && (during = locks()));
  const { code, err } = await cli(fitArgs(data, join(data, 'run')), { onStderr });
  expect([code, err]).toEqual([0, err]);
  after = locks();
  features = join(root, (await readdir(root))[0]!);
  const bytes = { name: 'w', dtype: 'U8', shape: [4], data: new Uint8Array(4) } as const;
  await writeSafetensors(int8(), [bytes], { model: '/models/base' });
  await writeFile(mark(), '');
  await writeFile(foreign(), 'not of the cache');
}, 60_000);
afterAll(() => rm(data, { recursive: true, force: true }));

describe('cache', () => {
  it('a run has a lock on its features until it ends', () => {
    expect([during.length, after]).toEqual([1, []]);
  });

  it('list: kind, pictures, bytes and model', async () => {
    const { bytes, entries } = await run<Listed>('list');
    const [stored, weights] = [
      entries.find(({ path }) => path === features),
      entries.find(({ path }) => path === int8()),
    ];
    expect(entries).toHaveLength(2);
    expect(stored).toMatchObject({ kind: 'query_embeds', pictures: 3, model: TINY, in_use: false });
    expect(weights).toMatchObject({ kind: 'int8', pictures: 0, model: '/models/base' });
    expect(bytes).toBe(stored!.bytes + weights!.bytes);
    const { out } = await cli(['cache', 'list', '--cache-dir', root]);
    expect(out).toMatch(/query_embeds-.* 3 +\d{4}-\d\d-\d\d +\//);
    const none = await cli(['cache', 'list', '--cache-dir', join(root, 'gone')]);
    expect([none.code, none.out]).toEqual([0, expect.stringContaining('0 entries, 0 B')]);
  });

  it('prune: removes what is older, and nothing with --dry-run', async () => {
    expect((await run<Pruned>('prune')).removed).toEqual([]);
    await age(int8(), 40);
    expect((await run<Pruned>('prune', '--dry-run')).removed).toEqual([]); // its mark has the last use
    await age(mark(), 40);
    const { entries } = await run<Listed>('list');
    const bytes = entries.find(({ kind }) => kind === 'int8')!.bytes;
    expect(await run<Pruned>('prune', '--dry-run')).toMatchObject({ freed_bytes: bytes });
    expect(existsSync(int8())).toBe(true);
    expect(await run<Pruned>('prune', '--older-than', '50d')).toMatchObject({ freed_bytes: 0 });
    expect(await run<Pruned>('prune')).toMatchObject({ freed_bytes: bytes, removed: [{ path: int8() }] });
    expect([int8(), mark(), features].map((path) => existsSync(path))).toEqual([false, false, true]);
  });

  it('prune --all: keeps what a process uses, then removes it and leaves other files', async () => {
    await mkdir(join(features, 'users'), { recursive: true });
    const release = await lockFile(join(features, 'users', 'other.lock'));
    expect(await run<Pruned>('prune', '--all')).toMatchObject({ removed: [], in_use: [{ path: features }] });
    const printed = await cli(['cache', 'prune', '--all', '--cache-dir', root]);
    expect(printed.out).toContain(`in use, kept: ${features}\n0 B (0 bytes) freed: 0 entries`);
    await release();
    expect((await run<Pruned>('prune', '--all')).removed).toMatchObject([{ path: features }]);
    expect(await readdir(root)).toEqual(['notes.txt']);
  });
});

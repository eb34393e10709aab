/** Texts for the pictures of shards: tar and Parquet, killed, repeated and joined. */
import { spawn } from 'node:child_process';
import { copyFileSync, existsSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parquetReadObjects } from 'hyparquet';
import { parquetWriteBuffer } from 'hyparquet-writer';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bundle } from '../../../tsup.config';
import { fraction } from '../spec/faults';
import { writeShard } from '../spec/shards';
import { cli, IMAGE, TINY } from '../spec/testing';
import type { ShardManifest } from './shard-manifest';

let root: string;
let image: Buffer;
const OPTIONS = ['--model', TINY, '--backend', 'wasm', '--batch-size', '2', '--max-new-tokens', '3'];
const caption = (from: string, to: string, ...more: string[]) =>
  cli(['caption', join(root, from), '--output', join(root, to), ...OPTIONS, ...more]);
const rowsOf = async (file: string) =>
  (await readFile(join(root, file), 'utf8'))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { key: string; caption?: string; error?: string });

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'blip2-shards-'));
  image = await readFile(IMAGE);
  await mkdir(join(root, 'tars'));
  for (const [i, rows] of [5, 3, 1, 4, 6].entries()) {
    const keys = Array.from({ length: rows }, (_, k) => `${i}${k}`);
    await writeShard(
      join(root, 'tars', `0000${i}.tar`),
      keys.map((key) => [key, image] as const),
    );
  }
});
afterAll(() => rm(root, { recursive: true, force: true }));

/** Shards of the folder's pictures in turn, with keys of their own. */
async function largeJob(folder: string): Promise<string> {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.png')).sort();
  const bytes = await Promise.all(names.map((name) => readFile(join(folder, name))));
  await mkdir(join(root, 'large'));
  for (let shard = 0; shard < JOB.shards; shard++) {
    const size = JOB.pictures / JOB.shards;
    const pictures = Array.from({ length: size }, (_, i) => shard * size + i);
    const file = join(root, 'large', `${String(shard).padStart(5, '0')}.tar`);
    await writeShard(
      file,
      pictures.map((n) => [String(n).padStart(9, '0'), bytes[n % bytes.length]] as const),
    );
  }
  return join(root, 'large');
}

describe('captions of shards', () => {
  it('have a row for each picture of a tar, in its order, and are left out by the next call', async () => {
    const first = await caption('tars', 'captions', '--json');
    expect(first.code, first.err).toBe(0);
    expect(JSON.parse(first.out)).toMatchObject({ shards: 5, rows: 19, failed: 0 });
    expect((await rowsOf('captions/00000.jsonl')).map(({ key }) => key)).toEqual([
      '00',
      '01',
      '02',
      '03',
      '04',
    ]);
    const plain = await cli(['caption', IMAGE, ...OPTIONS, '--json']);
    const { results } = JSON.parse(plain.out) as { results: { caption: string }[] };
    for (const row of await rowsOf('captions/00003.jsonl')) expect(row.caption).toBe(results[0].caption);
    const again = await caption('tars', 'captions', '--json');
    expect([again.code, JSON.parse(again.out)]).toEqual([0, JSON.parse(first.out)]);
    expect(await readdir(join(root, 'captions'))).not.toContain('.00000.rows.jsonl');
  });

  it('record a picture that cannot be read, and go on', async () => {
    await mkdir(join(root, 'bad'));
    const members = [['a', image] as const, ['b', Buffer.from('no picture')] as const, ['c', image] as const];
    await writeShard(join(root, 'bad', 'x.tar'), members);
    const { code, err } = await caption('bad', 'bad-captions');
    expect([code, err]).toEqual([0, expect.stringMatching(/cannot be read: .*x\.tar:b: /)]);
    expect(
      (await rowsOf('bad-captions/x.jsonl')).map(({ key, error }) => [key, error === undefined]),
    ).toEqual([
      ['a', true],
      ['b', false],
      ['c', true],
    ]);
  });

  it('record no errors when the shard itself cannot be read any more', async () => {
    await mkdir(join(root, 'lost'));
    const shard = join(root, 'lost', 'x.tar');
    await writeShard(
      shard,
      ['a', 'b', 'c', 'd'].map((key) => [key, image] as const),
    );
    const argv = ['caption', shard, '--output', join(root, 'lost-captions'), ...OPTIONS];
    const onStderr = (text: string) => void (text.includes('2 of 4') && rmSync(shard, { force: true }));
    const { code, err } = await cli(argv, { terminal: true, onStderr });
    expect([code, err]).toEqual([1, expect.stringMatching(/x\.tar: .*ENOENT.*the same command continues/)]);
    await writeShard(
      shard,
      ['a', 'b', 'c', 'd'].map((key) => [key, image] as const),
    );
    expect((await cli(argv)).code).toBe(0);
    const rows = await rowsOf('lost-captions/x.jsonl');
    expect(rows.map(({ error }) => error)).toEqual([undefined, undefined, undefined, undefined]);
  });

  it('keep the rows of a second try that is interrupted', async () => {
    expect((await caption('tars', 'again')).code).toBe(0);
    await rm(join(root, 'again', '00000.jsonl')); // as `data join` advises for a damaged file
    let interrupt = () => undefined as void;
    const { code } = await cli(['caption', join(root, 'tars'), '--output', join(root, 'again'), ...OPTIONS], {
      terminal: true,
      onInterrupt: (callback) => ((interrupt = callback), () => undefined),
      onStderr: (text) => text.includes('2 of 5 pictures') && interrupt(),
    });
    expect(code).toBe(130);
    expect(await rowsOf('again/.00000.rows.jsonl')).toHaveLength(2);
    expect((await caption('tars', 'again')).code).toBe(0);
    expect(await rowsOf('again/00000.jsonl')).toHaveLength(5);
    expect(existsSync(join(root, 'again', '.00000.rows.jsonl'))).toBe(false);
  });

  it('are not made again when another process has finished the shard meanwhile', async () => {
    await mkdir(join(root, 'twice'));
    const members = [['a', image] as const, ['b.txt', Buffer.from('no picture')] as const];
    await writeShard(join(root, 'twice', 'x.tar'), members);
    expect((await caption('twice', 'first')).code).toBe(0);
    const argv = ['caption', join(root, 'twice'), '--output', join(root, 'second'), ...OPTIONS];
    const finishByOther = () => {
      copyFileSync(join(root, 'first', '.x.done.json'), join(root, 'second', '.x.done.json'));
      writeFileSync(join(root, 'second', 'x.jsonl'), 'of the other process');
    };
    const { code, err } = await cli(argv, {
      onStderr: (text) => text.includes('without a picture are left out') && finishByOther(),
    });
    expect(code, err).toBe(0);
    expect(await readFile(join(root, 'second', 'x.jsonl'), 'utf8')).toBe('of the other process');
    expect((await readdir(join(root, 'second'))).sort()).toEqual([
      '.x.done.json',
      'settings.json',
      'x.jsonl',
    ]);
  });

  it('have one folder with one set of settings, also when two calls begin at once', async () => {
    const both = await Promise.all(
      ['a', 'b'].map((prompt) => caption('tars', 'contended', '--prompt', prompt)),
    );
    expect(both.map(({ code }) => code).sort()).toEqual([0, 1]);
    expect(both.map(({ err }) => err).join('')).toMatch(/other settings:\n.*prompt/);
  });

  it('are read from Parquet and written as Parquet', async () => {
    await mkdir(join(root, 'tables'));
    const data = [image, image, Buffer.from('no picture')].map((bytes) => new Uint8Array(bytes));
    const columnData = [{ name: 'image', data, type: 'BYTE_ARRAY' as const }];
    await writeFile(join(root, 'tables', 'part.parquet'), Buffer.from(parquetWriteBuffer({ columnData })));
    const { code, err } = await caption('tables', 'as-parquet', '--format', 'parquet');
    expect(code, err).toBe(0);
    const { buffer, byteOffset, length } = await readFile(join(root, 'as-parquet', 'part.parquet'));
    const file = buffer.slice(byteOffset, byteOffset + length) as ArrayBuffer;
    const rows = (await parquetReadObjects({ file })) as { key: string; caption: string; error: string }[];
    expect(rows.map(({ key }) => key)).toEqual(['0', '1', '2']);
    expect(rows.map((row) => [typeof row.caption, row.error === null])).toEqual([
      ['string', true],
      ['string', true],
      ['object', false],
    ]);
  });

  it.each([
    ['with pictures beside them', [IMAGE], [], /shards .* only, or pictures only; .*red\.png has no shards/],
    ['without an output', [], ['--output', 'x.jsonl'], /expected a folder/],
    ['with --sidecars', [], ['--sidecars'], /expected pictures, found shards/],
    [
      'with several texts in Parquet',
      [],
      ['--format', 'parquet', '--num-beams', '2', '--num-return-sequences', '2'],
      /--format jsonl/,
    ],
  ])('are refused %s', async (_, more, options, message) => {
    const argv = [
      'caption',
      join(root, 'tars'),
      ...more,
      '--output',
      join(root, 'no'),
      ...OPTIONS,
      ...options,
    ];
    const { code, err } = await cli(argv);
    expect([code, err]).toEqual([2, expect.stringMatching(message)]);
    expect(existsSync(join(root, 'no'))).toBe(false);
  });

  it('are not meant by a table beside pictures', async () => {
    await mkdir(join(root, 'mixed'));
    await writeFile(join(root, 'mixed', 'one.png'), image);
    await writeFile(join(root, 'mixed', 'metadata.parquet'), 'a table');
    const { code, out } = await cli(['caption', join(root, 'mixed'), ...OPTIONS, '--json']);
    expect([code, (JSON.parse(out) as { results: object[] }).results]).toEqual([0, [expect.anything()]]);
  });

  it('are not meant by a pattern that matches pictures too', async () => {
    await mkdir(join(root, 'both'));
    await writeFile(join(root, 'both', 'one.png'), image);
    await writeShard(join(root, 'both', 'x.tar'), [['a', image]]);
    const { code, out, err } = await cli(['caption', join(root, 'both', '*'), ...OPTIONS, '--json']);
    expect(code, err).toBe(0);
    expect((JSON.parse(out) as { results: object[] }).results).toHaveLength(1);
  });

  it('are refused with other settings than those of the folder, and for another shard of the same name', async () => {
    await caption('tars', 'fixed');
    expect((await caption('tars', 'fixed', '--prompt', 'a photo of')).err).toMatch(
      /other settings:\n.*prompt/,
    );
    await mkdir(join(root, 'newer'));
    await writeShard(join(root, 'newer', '00002.tar'), [
      ['a', image],
      ['b', image],
    ]);
    expect((await caption('newer', 'fixed')).err).toMatch(/00002\.tar: expected \d+ bytes, .*found \d+/);
  });
});

/**
 * BLIP2_CAPTION_JOB=FOLDER names a folder of pictures: 10,000 of them (repeated), 40 shards, 8 tasks and 5 kills, with the demo's model.
 */
const LARGE = process.env.BLIP2_CAPTION_JOB;
const MINI = fileURLToPath(new URL('../../../models/blip2-emoji-mini', import.meta.url));
const JOB = LARGE
  ? {
      pictures: 10_000,
      shards: 40,
      parts: 8,
      kills: 5,
      bytes: 40_000,
      options: ['--model', MINI, '--batch-size', '32'],
    }
  : { pictures: 19, shards: 5, parts: 2, kills: 4, bytes: 1, options: OPTIONS };

describe('an array job over shards', () => {
  const joined = (to: string) => cli(['data', 'join', join(root, to), join(root, 'tars'), '--json']);

  it('is complete after processes were killed and repeated', { timeout: 1_800_000 }, async () => {
    const from = LARGE ? await largeJob(LARGE) : join(root, 'tars');
    const bin = await bundle(new URL('bin.ts', import.meta.url));
    const output = join(root, 'killed');
    const argv = ['caption', from, '--output', output, ...JOB.options, '--part', 'auto'];
    const written = async () => {
      const names = await readdir(output).catch(() => []);
      const sizes = names
        .filter((name) => name.endsWith('.jsonl'))
        .map((name) => statSync(join(output, name), { throwIfNoEntry: false })?.size ?? 0);
      return sizes.reduce((sum, size) => sum + size, 0);
    };
    const task = async (index: number, kill?: number) => {
      const env = { ...process.env, JOB_COMPLETION_INDEX: String(index), BLIP2_PARTS: String(JOB.parts) };
      const child = spawn(process.execPath, [bin, ...argv], { stdio: 'ignore', env });
      const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
      if (kill === undefined) return ended;
      const enough = (await written()) + Math.max(1, JOB.bytes * fraction('captions', kill));
      while (child.exitCode === null && (await written()) < enough) await setTimeout(2);
      child.kill('SIGKILL');
      return ended;
    };
    const codes: (number | null)[] = [];
    for (let kill = 0; kill < JOB.kills; kill++) codes.push(await task(kill % JOB.parts, kill));
    expect(codes).toContain(null); // killed, not finished
    const early = await cli(['data', 'join', join(root, 'killed'), from, '--json']);
    expect(early.out).toMatch(/shards are not finished/);
    for (let index = 0; index < JOB.parts; index++) expect(await task(index)).toBe(0);

    const { code, out, err } = await cli(['data', 'join', join(root, 'killed'), from, '--json']);
    expect(code, err).toBe(0);
    const manifest = JSON.parse(out) as ShardManifest;
    expect([manifest.rows, manifest.failed, manifest.shards.length]).toEqual([JOB.pictures, 0, JOB.shards]);
    const keys: string[] = [];
    for (const { file } of manifest.shards)
      for (const { key, caption } of await rowsOf(`killed/${file}`)) {
        expect(typeof caption).toBe('string');
        keys.push(key);
      }
    expect([keys.length, new Set(keys).size]).toEqual([JOB.pictures, JOB.pictures]);
    if (LARGE)
      return console.error(
        `${codes.length} kills: ${codes.filter((one) => one === null).length} while a task ran`,
      );
    await caption('tars', 'whole');
    for (const { file } of manifest.shards)
      expect(await rowsOf(`killed/${file}`)).toEqual(await rowsOf(`whole/${file}`));
  });

  it('is not joined while a shard is missing, changed, or of others', async () => {
    await caption('tars', 'partly', '--part', '1/2');
    expect((await joined('partly')).err).toMatch(/2 of 5 shards are not finished: 00001\.tar, 00003\.tar/);
    await caption('tars', 'partly');
    const file = join(root, 'partly', '00001.jsonl');
    const text = await readFile(file, 'utf8');
    await writeFile(file, text.replace('"key"', '"Key"'));
    expect((await joined('partly')).err).toMatch(/00001\.jsonl: expected the content that was written/);
    await writeFile(file, text);
    await writeFile(join(root, 'partly', 'other.jsonl'), text);
    expect((await joined('partly')).err).toMatch(/1 files are of shards that were not named: other\.jsonl/);
    expect(existsSync(join(root, 'partly', 'manifest.json'))).toBe(false);
  });
});

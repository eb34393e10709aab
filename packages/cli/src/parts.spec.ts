/** An array job: parts of a list of pictures, killed and repeated, and their files joined. */
import { spawn } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bundle } from '../../../tsup.config';
import { cli, IMAGE, TINY } from '../spec/testing';
import { fileOf, partOf, picturesOf } from './parts';
import type { Joined } from './parts';

describe('parts', () => {
  it.each([
    ['as written', '3/8', {}, { index: 2, of: 8 }],
    [
      'a Slurm array',
      'auto',
      {
        SLURM_ARRAY_TASK_ID: '5',
        SLURM_ARRAY_TASK_MIN: '1',
        SLURM_ARRAY_TASK_MAX: '8',
        SLURM_ARRAY_TASK_COUNT: '8',
      },
      { index: 4, of: 8 },
    ],
    ['an Indexed Job', 'auto', { JOB_COMPLETION_INDEX: '0', BLIP2_PARTS: '4' }, { index: 0, of: 4 }],
    ['srun', 'auto', { SLURM_STEP_NUM_TASKS: '2', SLURM_PROCID: '1' }, { index: 1, of: 2 }],
  ])('are numbered: %s', (_, text, env, part) => expect(partOf(text, env)).toEqual(part));

  it.each(['0/8', '9/8', '3', 'a/b', '1/0', 'auto'])('%s is refused', (text) =>
    expect(() => partOf(text, {})).toThrow(/--part/),
  );

  it.each([
    ['one task again', { SLURM_ARRAY_TASK_MIN: '3', SLURM_ARRAY_TASK_MAX: '3', SLURM_ARRAY_TASK_COUNT: '1' }],
    [
      'a list with holes',
      { SLURM_ARRAY_TASK_MIN: '1', SLURM_ARRAY_TASK_MAX: '7', SLURM_ARRAY_TASK_COUNT: '3' },
    ],
  ])('a part of an array is refused, because its size is not known: %s', (_, env) =>
    expect(() => partOf('auto', { SLURM_ARRAY_TASK_ID: '3', ...env })).toThrow(/expected a whole array/),
  );

  it('divide a list with nothing left out and nothing twice', () => {
    const pictures = Array.from({ length: 23 }, (_, i) => `${i}.png`);
    const all = [0, 1, 2, 3, 4].flatMap((index) => picturesOf(pictures, { index, of: 5 }));
    expect([...all].sort()).toEqual([...pictures].sort());
    expect(fileOf('out/captions.jsonl', { index: 2, of: 8 })).toBe('out/captions.part-3-of-8.jsonl');
  });
});

describe('an array job', () => {
  const PARTS = 4;
  let root: string;
  let photos: string;
  const output = () => join(root, 'captions.jsonl');
  const argv = (part: number) => [
    ...['caption', photos, '--model', TINY, '--output', output(), '--part', `${part}/${PARTS}`],
    ...['--backend', 'wasm', '--batch-size', '2', '--max-new-tokens', '3'],
  ];

  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'blip2-parts-'));
    photos = join(root, 'photos');
    await mkdir(photos);
    for (let i = 0; i < 41; i++) await cp(IMAGE, join(photos, `${i}.png`));
  });
  afterAll(() => rm(root, { recursive: true, force: true }));

  it('is complete after jobs were killed and repeated', { timeout: 240_000 }, async () => {
    const bin = await bundle(new URL('bin.ts', import.meta.url));
    const early = await cli(['data', 'join', output(), photos]);
    expect(early.err).toMatch(/expected its parts, such as captions\.part-1-of-8\.jsonl, .*found none/);
    for (let part = 1; part <= PARTS; part++) {
      const child = spawn(process.execPath, [bin, ...argv(part)], { stdio: 'ignore' });
      const ended = new Promise((resolve) => child.on('close', resolve));
      await Promise.race([ended, setTimeout(400 + 400 * part)]);
      child.kill('SIGKILL');
      await ended;
    }
    const half = await cli(['data', 'join', output(), photos]);
    if (half.code !== 0)
      expect(half.err).toMatch(/have no row yet|missing parts|is not finished|expected its parts/);
    for (let part = 1; part <= PARTS; part++) expect((await cli(argv(part))).code).toBe(0);
    const joined = await cli(['data', 'join', output(), photos, '--json']);
    expect(joined.code, joined.err).toBe(0);
    expect(JSON.parse(joined.out)).toMatchObject({
      rows: 41,
      parts: [{ rows: 11 }, { rows: 10 }, { rows: 10 }, { rows: 10 }],
    });

    const whole = join(root, 'whole.jsonl');
    const [, , ...options] = argv(1).filter(
      (_, i, all) => !['--output', '--part'].includes(all[i - 1]) && !['--output', '--part'].includes(all[i]),
    );
    expect((await cli(['caption', photos, ...options, '--output', whole])).code).toBe(0);
    expect(await readFile(output(), 'utf8')).toBe(await readFile(whole, 'utf8'));
  });

  it('leaves out pictures that cannot be read, and lists them', { timeout: 240_000 }, async () => {
    const folder = join(root, 'damaged');
    await mkdir(folder);
    const at = (name: string) => join(folder, name);
    for (const name of ['0', '1', '2', '3', '4']) await cp(IMAGE, at(`${name}.png`));
    await writeFile(at('3.png'), (await readFile(IMAGE)).subarray(0, 60));
    const file = join(root, 'some.jsonl');
    const options = ['--model', TINY, '--backend', 'wasm', '--max-new-tokens', '3', '--output', file];
    const task = (part: number) => cli(['caption', folder, ...options, '--part', `${part}/2`]);
    const joinedBy = (...more: string[]) => cli(['data', 'join', file, folder, ...more]);
    expect((await task(1)).code).toBe(0);
    const { code, out, err } = await task(2);
    expect(err).toMatch(/^cannot be read: .*3\.png: /m);
    expect([code, out]).toEqual([
      0,
      expect.stringContaining('1 caption written, 1 of 2 pictures cannot be read, which data join will list'),
    ]);
    const joined = await joinedBy();
    expect([joined.code, joined.out]).toEqual([
      0,
      `${file}: 4 rows of 2 parts, no row for 1 of 5 pictures, which cannot be read; ${file}.manifest.json lists them\n`,
    ]);
    const { failed } = JSON.parse(await readFile(`${file}.manifest.json`, 'utf8')) as Joined;
    expect(failed).toEqual([
      { image: 'damaged/3.png', error: expect.stringContaining('cannot be decoded') as string },
    ]);
    const rows = (await readFile(file, 'utf8')).trim().split('\n');
    expect(rows.map((row) => (JSON.parse(row) as { image: string }).image)).toEqual(
      ['0', '1', '2', '4'].map((name) => `damaged/${name}.png`),
    );

    await cp(IMAGE, at('3.png')); // repaired
    const argv = ['caption', folder, ...options, '--part', '2/2'];
    await cli(argv, { onInterrupt: (stop) => (stop(), () => undefined) });
    expect((await joinedBy()).err).toContain('1 of 5 pictures have no row yet');
    // the same task does it
    expect((await task(2)).out).toContain('1 caption written, 1 already there');
    expect(JSON.parse((await joinedBy('--json')).out)).toMatchObject({ rows: 5, failed: [] });
    await rm(`${file.replace('.jsonl', '.part-2-of-2.jsonl')}`);
    await rm(at('1.png'));
    await symlink(join(root, 'gone.png'), at('1.png'));
    const lost = await task(2); // may be there again at another time
    expect([lost.code, lost.err]).toEqual([1, expect.stringContaining('1 of 2 pictures cannot be read')]);
    expect((await joinedBy()).err).toMatch(
      /1 of 5 pictures have no row yet: .*1\.png; run the same array job again/,
    );
  });

  it(
    'is not joined with a part of other settings, or with one that is missing',
    { timeout: 60_000 },
    async () => {
      await cli([...argv(2), '--overwrite', '--max-new-tokens', '2']);
      expect((await cli(['data', 'join', output(), photos])).err).toMatch(
        /part-2-of-4\.jsonl: its rows were made with other settings/,
      );
      await rm(join(root, 'captions.part-3-of-4.jsonl'));
      expect((await cli(['data', 'join', output(), photos])).err).toMatch(/missing parts 3 of 4/);
    },
  );
});

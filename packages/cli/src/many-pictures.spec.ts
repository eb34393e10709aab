/** `caption` and `answer` for folders, patterns and lists of pictures, into files that a later call continues. */
import { existsSync } from 'node:fs';
import { copyFile, cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openDataset } from '@blip2/data-captions';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { cli, IMAGE, TINY } from '../spec/testing';

const MODEL = ['--model', TINY, '--backend', 'cpu', '--max-new-tokens', '6', '--batch-size', '2'];

let root: string;
let photos: string;
/** in the order of folders and names */
let all: string[];
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'blip2-many-'));
  photos = join(root, 'photos');
  await mkdir(join(photos, 'a', 'b'), { recursive: true });
  const copies = ['1.png', '2.PNG', join('a', '3.png'), join('a', 'b', '4.png'), join('a', 'b', '5 x.png')];
  const from = ['red', 'grey', 'blue-alpha'];
  all = copies.map((name) => join(photos, name));
  for (const [i, file] of all.entries()) await copyFile(IMAGE.replace('red', from[i % 3]), file);
  await writeFile(join(photos, 'notes.md'), 'no picture');
});
afterAll(() => rm(root, { recursive: true }));

async function imagesOf(args: string[], stdin = ''): Promise<string[]> {
  const { code, out } = await cli(['caption', ...args, ...MODEL, '--json'], {
    stdin: () => Promise.resolve(stdin),
  });
  expect(code).toBe(0);
  return (JSON.parse(out) as { results: { image: string }[] }).results.map(({ image }) => image);
}

const lines = async (file: string) => (await readFile(file, 'utf8')).split('\n').slice(0, -1);

it('takes folders, patterns and lists, each picture once', async () => {
  expect(await imagesOf([photos])).toEqual(all);
  expect(await imagesOf([all[3], photos])).toEqual([all[3], ...all.filter((_, i) => i !== 3)]);
  expect(await imagesOf([`${photos}/**/*.{png,PNG,md}`])).toEqual([...all].sort());
  expect(await imagesOf(['-'], `${all[1]}\r\n\n${all[4]}\n`)).toEqual([all[1], all[4]]);
  expect(await imagesOf(['-'], `${all[1]}\0${all[4]}\0`)).toEqual([all[1], all[4]]);
});

it('names every argument without pictures before the model is loaded', async () => {
  const empty = join(root, 'empty');
  await mkdir(empty);
  const args = [empty, 'https://example.org/cat.jpg', 'nope.jpg', `${photos}/*.gif`];
  const { code, err } = await cli(['caption', ...args, '--model', 'also-none']);
  expect(code).toBe(1);
  expect(err.trim().split('\n')).toEqual([
    `error: ${empty}: expected pictures (.jpg, .png, .webp, …), found none in it or below it`,
    'https://example.org/cat.jpg: expected a file, found an address; download it first, such as with: curl -LO https://example.org/cat.jpg',
    'nope.jpg: there is no such image file or folder',
    `${photos}/*.gif: expected pictures (.jpg, .png, .webp, …), found none that match`,
  ]);
  expect(await cli(['caption', '-', ...MODEL])).toMatchObject({ code: 2, out: '' });
});

it('writes rows that training reads, with the texts that it prints', async () => {
  const file = join(root, 'rows', 'captions.jsonl');
  const { code, out, err } = await cli(['caption', photos, ...MODEL, '--output', file]);
  expect([code, out]).toEqual([0, `${file}: 5 captions written\n`]);
  expect(err).toMatch(/5 of 5 pictures {2}[\d.]+ pictures\/s {2}ETA 0.0 s\n$/);
  const { examples } = await openDataset(file);
  const printed = await cli(['caption', photos, ...MODEL]);
  expect(examples.map(({ image, caption }) => `${image}: ${caption}\n`).join('')).toBe(printed.out);
  expect((await lines(file))[0]).toMatch(/^\{"image":"\.\.\/photos\/1\.png","caption":"[^"]+"\}$/);
});

it('writes questions with their answers, and several texts as a list', async () => {
  const file = join(root, 'answers.jsonl');
  const args = ['answer', photos, ...MODEL, '--question', 'what?', '--output', file];
  expect((await cli(args)).code).toBe(0);
  const { examples } = await openDataset(file, { texts: { task: 'vqa' } });
  expect(examples.map(({ question }) => question)).toEqual(Array(5).fill('what?'));
  const many = join(root, 'many.jsonl');
  const beams = ['--num-beams', '2', '--num-return-sequences', '2'];
  expect((await cli(['caption', photos, ...MODEL, ...beams, '--output', many])).code).toBe(0);
  expect((await openDataset(many)).examples[0].captions).toHaveLength(2);
});

it('continues a file that was stopped, to the same rows', async () => {
  const [whole, stopped] = [join(root, 'whole.jsonl'), join(root, 'stopped.jsonl')];
  const sampling = [...MODEL, '--do-sample', '--top-k', '9'];
  await cli(['caption', photos, ...sampling, '--batch-size', '5', '--output', whole]);
  let interrupt = () => {};
  const first = await cli(['caption', photos, ...sampling, '--output', stopped], {
    terminal: true,
    onInterrupt: (callback) => ((interrupt = callback), () => undefined),
    onStderr: (text) => void (text.includes('2 of 5') && interrupt()),
  });
  expect([first.code, first.out]).toEqual([130, '']);
  expect(first.err).toContain('stopped: 2 of 5 pictures have their caption');
  const rows = await lines(stopped);
  expect(rows).toEqual((await lines(whole)).slice(0, 2));
  await writeFile(stopped, [...rows, '{"image":"photos/a/3.p'].join('\n'));
  const second = await cli(['caption', photos, ...sampling, '--output', stopped]);
  expect(second.err).toContain('the last line was not written to its end');
  expect(second.out).toBe(`${stopped}: 3 captions written, 2 already there\n`);
  expect(await readFile(stopped)).toEqual(await readFile(whole));
  const third = await cli(['caption', photos, ...sampling, '--output', stopped]);
  expect(third.out).toBe(`${stopped}: 0 captions written, 5 already there\n`);
});

it('continues no file of other settings, of another model or of unknown origin', async () => {
  const file = join(root, 'bound.jsonl');
  const run = (...more: string[]) => cli(['caption', all[0], ...MODEL, '--output', file, ...more]);
  expect((await run()).code).toBe(0);
  const before = await readFile(file);
  const other = await run('--prompt', 'a', '--num-beams', '2');
  expect(other).toMatchObject({ code: 1, out: '' });
  expect(other.err).toContain('prompt: was "", is "a"\n  num_beams: was 1, is 2\n');
  const copy = join(root, 'model');
  await cp(TINY, copy, { recursive: true });
  await writeFile(join(copy, 'config.json'), `${await readFile(join(TINY, 'config.json'), 'utf8')}\n`);
  expect((await run('--model', copy)).err).toContain('model: other files: config.json');
  await rm(join(root, '.bound.jsonl.settings.json'));
  expect((await run()).err).toContain('so more rows would be a mixture');
  expect(await readFile(file)).toEqual(before);
  expect((await run('--prompt', 'a', '--overwrite')).out).toBe(`${file}: 1 caption written\n`);
});

it('goes on after pictures that cannot be read, and fails with their names', async () => {
  const [file, bad] = [join(root, 'some.jsonl'), join(root, 'bad.png')];
  await writeFile(bad, (await readFile(IMAGE)).subarray(0, 60));
  const list = { stdin: () => Promise.resolve([all[0], bad, 'gone.png', all[1]].join('\n')) };
  const args = ['caption', '-', ...MODEL, '--output', file];
  const { code, out, err } = await cli(args, list);
  expect([code, out]).toEqual([1, `${file}: 2 captions written\n`]);
  expect(err).toMatch(/^cannot be read: .*bad\.png: the image cannot be decoded/m);
  expect(err).toMatch(/^cannot be read: gone\.png: .*ENOENT/m);
  expect(err).toMatch(/error: 2 of 4 pictures cannot be read; they are named above\n$/);
  await copyFile(IMAGE, bad);
  expect((await cli(args, list)).out).toBe(`${file}: 1 caption written, 2 already there\n`);
  const printed = await cli(['caption', '-', ...MODEL, '--json'], list);
  expect(JSON.parse(printed.out)).toMatchObject({ results: [{}, {}, {}], failed: [{ image: 'gone.png' }] });
});

it('writes a text file beside each picture, and keeps those that are there', async () => {
  const folder = join(root, 'sidecars');
  await mkdir(folder);
  for (const name of ['one.png', 'two.png', 'two.webp']) await copyFile(IMAGE, join(folder, name));
  await writeFile(join(folder, 'one.txt'), 'my own words\n');
  const args = ['caption', folder, ...MODEL, '--sidecars'];
  const first = await cli(args);
  expect(first.out).toContain('2 captions written, 1 already there (--overwrite replaces them)');
  const captions = async () => (await openDataset(folder)).examples.map(({ caption }) => caption);
  const [text] = (await cli(['caption', IMAGE, ...MODEL])).out.split('\n');
  expect(await captions()).toEqual(['my own words', text, text]);
  expect(existsSync(join(folder, 'two.txt'))).toBe(false); // it would be the text of both
  await cli([...args, '--overwrite']);
  expect(await captions()).toEqual([text, text, text]);
});

it('refuses options that contradict each other', async () => {
  for (const more of [
    ['--output', 'captions.jsonl', '--sidecars'],
    ['--output', 'captions.txt'],
    ['--overwrite'],
    ['--sidecars', '--stream'],
  ])
    expect(await cli(['caption', IMAGE, ...MODEL, ...more])).toMatchObject({ code: 2, out: '' });
});

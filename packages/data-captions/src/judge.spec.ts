/** Each bad row has the same verdict, in the same words, from every function that opens data. */
import { copyFile, mkdir, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { temporaryFolder } from '../spec/model-folder';
import { checkData } from './check/check';
import { openDataset } from './dataset';
import { DataError, problemLines } from './errors';
import type { TextRules } from './judge';
import { loadProcessor } from './load-processor';

const pictures = fileURLToPath(new URL('../fixtures/images/', import.meta.url));
const model = fileURLToPath(new URL('../../blip2/fixtures/tiny', import.meta.url));

let dir: string;
let texts: TextRules;
beforeAll(async () => {
  dir = await temporaryFolder();
  await copyFile(join(pictures, 'rgb-64x64.png'), join(dir, 'a.png'));
  await copyFile(join(pictures, 'rgb-64x64.png'), join(dir, 'cut.png'));
  await truncate(join(dir, 'cut.png'), 100);
  await writeFile(join(dir, 'empty.png'), '');
  await writeFile(join(dir, 'note.png'), 'not a picture');
  await mkdir(join(dir, 'folder.png'));
  const bomb = await readFile(join(pictures, 'rgb-64x64.png'));
  bomb.writeUInt32BE(60_000, 16);
  bomb.writeUInt32BE(60_000, 20);
  await writeFile(join(dir, 'bomb.png'), bomb);
  const config = JSON.parse(await readFile(join(model, 'config.json'), 'utf8')) as Record<string, never>;
  const ids = {
    rows: 'causal',
    bos: 2,
    eos: 2,
    pad: 1,
    imageToken: config.image_token_index,
    numQueryTokens: 4,
  } as const;
  const processor = await loadProcessor(model, ids);
  texts = { task: 'caption', processor, max_text_length: 40 };
});

const a = { image: 'a.png' };
const BAD: [what: string, row: unknown, words: RegExp][] = [
  ['no JSON', 'not json', /one JSON object/],
  ['no text', a, /"caption" \(or "text"\)/],
  ['an empty text', { ...a, caption: ' \n' }, /words in "caption", found an empty string/],
  ['an empty text in a list', { ...a, caption: ['a dog', ''] }, /texts with words in "caption"/],
  ['a text that is none', { ...a, caption: { en: 'a dog' } }, /a string in "caption"/],
  ['U+FFFD', { ...a, caption: 'a caf\ufffd' }, /text without U\+FFFD in "caption"/],
  ['U+FFFD in a list', { ...a, caption: ['a dog', 'a caf\ufffd'] }, /text without U\+FFFD in "caption"/],
  ['half a surrogate pair', { ...a, caption: 'a \ud83d dog' }, /text without U\+FFFD in "caption"/],
  ['too long a text', { ...a, caption: 'dog '.repeat(60) }, /at most 40 tokens/],
  ['too long a second text', { ...a, caption: ['a dog', 'dog '.repeat(60)] }, /at most 40 tokens/],
  ['a special token', { ...a, caption: 'a dog</s>' }, /a text without special tokens/],
  ['the start token', { ...a, caption: 'a dog <s> and a cat' }, /found "<s>" in "a dog/],
  ['a second text with <unk>', { ...a, caption: ['a dog', 'a <unk> dog'] }, /found "<unk>" in "a <unk>/],
  ['no caption for the task', { ...a, question: 'what?', answer: 'a dog' }, /a caption, found none/],
  ['no image column', { caption: 'a dog' }, /an image path/],
  ['no such image', { image: 'gone.png', caption: 'a dog' }, /no file "gone\.png"/],
  ['an address', { image: 'https://example.org/a.png', caption: 'a dog' }, /download it first/],
  ['a folder', { image: 'folder.png', caption: 'a dog' }, /no file "folder\.png"/],
  [
    'an empty image',
    { image: 'empty.png', caption: 'a dog' },
    /: expected a JPEG[^:]*, found [^:]*empty\.png: an empty file/,
  ],
  ['another kind of file', { image: 'note.png', caption: 'a dog' }, /note\.png: .*content of another kind/],
  ['a truncated image', { image: 'cut.png', caption: 'a dog' }, /cut\.png: the image cannot be decoded/],
  ['too large an image', { image: 'bomb.png', caption: 'a dog' }, /bomb\.png: the image cannot be decoded/],
  ['two problems', { image: 7, caption: '' }, /a string in "image", found 7; expected words in "caption"/],
];

async function write(...rows: unknown[]): Promise<string> {
  const file = join(dir, `${Math.random()}.jsonl`);
  const lines = rows.map((row) => (typeof row === 'string' ? row : JSON.stringify(row)));
  await writeFile(file, lines.join('\n'));
  return file;
}

const good = { ...a, caption: ['a dog', 'a cat'] };

describe('a bad row', () => {
  it.each(BAD)('with %s is left out by skip_bad, and named by data check', async (_, row, words) => {
    const file = await write(good, row, good);
    const report = await checkData(file, { texts });
    const lines = problemLines(report.bad_rows);
    expect(lines).toEqual([expect.stringMatching(words)]);
    expect(lines[0].startsWith(`${file}:2: expected `)).toBe(true);
    expect(report).toMatchObject({
      unusable: 1,
      usable: false,
      splits: [{ rows: 3, bad_rows: 1, captions: 4 }],
    });
    for (const references_for of [undefined, 'caption'] as const) {
      const { examples, skipped } = await openDataset(file, { texts, skip_bad: true, references_for });
      expect(problemLines(skipped!)).toEqual(lines);
      expect(examples).toHaveLength(references_for ? 1 : 2);
    }
  });

  it.each(BAD.filter(([what]) => !/image$|kind of file/.test(what)))(
    'with %s ends everything else in the same words',
    async (_, row, words) => {
      const file = await write(good, row);
      const opened = openDataset(file, { texts });
      await expect(opened).rejects.toThrow(DataError);
      await expect(opened).rejects.toThrow(/1 of 2 rows cannot be used; repair them/);
      const error = await opened.catch((e: DataError) => e);
      expect(error).toHaveProperty('message', expect.stringMatching(words));
    },
  );

  it('is counted once, whatever is wrong with it, and a limit is filled from the good ones', async () => {
    const file = await write(...BAD.map(([, row]) => row), ...Array<object>(12).fill(good));
    const report = await checkData(file, { texts });
    expect(report.unusable).toBe(BAD.length);
    expect(report.splits[0]).toMatchObject({ rows: BAD.length + 12, bad_rows: BAD.length });
    const { examples } = await openDataset(file, { texts, skip_bad: true, limit: 10, seed: 4 });
    expect(examples).toHaveLength(10);
  });

  it('that belongs to no split is counted once', async () => {
    const file = await write({ ...good, split: 'train' }, { ...good, split: 'test' }, good);
    const { splits, unusable } = await checkData(file, { texts });
    expect(unusable).toBe(1);
    expect(splits.map(({ split, rows, bad_rows }) => [split, rows, bad_rows])).toEqual([
      ['train', 1, 0],
      ['test', 1, 0],
      [null, 1, 1],
    ]);
  });
});

it('texts that are cut are no errors', async () => {
  const file = await write(good, { ...a, caption: 'dog '.repeat(60) });
  const cut = { ...texts, truncate: true };
  expect(await checkData(file, { texts: cut })).toMatchObject({ usable: true, splits: [{ truncated: 1 }] });
  expect((await openDataset(file, { texts: cut })).examples).toHaveLength(2);
});

import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../spec/model-folder';
import { listSplits, openDataset } from './dataset';
import { DataError } from './errors';
import { imageBytes, readImage } from './image-source';
import { parseJsonl } from './jsonl';

const lines = (...rows: unknown[]) =>
  rows.map((r) => (typeof r === 'string' ? r : JSON.stringify(r))).join('\n') + '\n';

/** A folder with these files; images may have any content. */
async function folder(files: Record<string, string | Uint8Array>): Promise<string> {
  const dir = await temporaryFolder();
  for (const [name, content] of Object.entries(files)) {
    await mkdir(join(dir, name, '..'), { recursive: true });
    await writeFile(join(dir, name), content);
  }
  return dir;
}

async function problemsOf(promise: Promise<unknown>): Promise<DataError> {
  const error = await promise.then(
    () => undefined,
    (e: unknown) => e,
  );
  expect(error).toBeInstanceOf(DataError);
  return error as DataError;
}

describe('openDataset', () => {
  it('finds images whose names have the form of a place in a larger file', async () => {
    const names = ['x#bytes=0+5', 'x.parquet#row=0&column=image'];
    const rows = lines(...names.map((file_name) => ({ file_name, text: 'a thing' })));
    const dir = await folder({ [names[0]]: 'one', [names[1]]: 'two!', 'metadata.jsonl': rows });
    const { examples } = await openDataset(dir);
    const found = await Promise.all(examples.map(({ image }) => readImage(image)));
    expect(found.map((bytes) => Buffer.from(bytes).toString())).toEqual(['one', 'two!']);
    expect(await Promise.all(examples.map(({ image }) => imageBytes(image)))).toEqual([3, 4]);
  });

  it('reads an imagefolder and keeps the other columns', async () => {
    const dir = await folder({
      'a.png': '',
      'sub/b.png': '',
      'metadata.jsonl': lines({ file_name: 'a.png', text: 'a cat', style: 'noto', n: 3 }, '', {
        file_name: 'sub/b.png',
        caption: 'a dog',
        question: 'what?',
        answer: 'dog',
      }),
    });
    const { path, examples } = await openDataset(dir);
    expect(path).toBe(dir);
    expect(examples).toEqual([
      {
        image: join(dir, 'a.png'),
        caption: 'a cat',
        fields: { style: 'noto', n: 3 },
        source: `${join(dir, 'metadata.jsonl')}:1`,
      },
      {
        image: join(dir, 'sub/b.png'),
        caption: 'a dog',
        question: 'what?',
        answer: 'dog',
        fields: {},
        source: `${join(dir, 'metadata.jsonl')}:3`,
      },
    ]);
    expect(await listSplits(dir)).toEqual([]);
    expect((await openDataset(dir, { split: 'train' })).examples).toHaveLength(2);
    expect((await problemsOf(openDataset(dir, { split: 'test' }))).message).toMatch(
      /no split "test".*not split/,
    );
  });

  it('reads a .jsonl with paths relative to it, a byte order mark and Windows line ends', async () => {
    const dir = await folder({
      'pictures/a.png': '',
      'rows.jsonl':
        '\ufeff{"image":"pictures/a.png","caption":"x"}\r\n\r\n{"image":"pictures/a.png","question":"q","answer":"y"}',
    });
    const { examples } = await openDataset(join(dir, 'rows.jsonl'));
    expect(examples.map((e) => e.caption ?? `${e.question}=${e.answer}`)).toEqual(['x', 'q=y']);
    expect(examples[1].source).toBe(`${join(dir, 'rows.jsonl')}:3`);
  });

  it('finds split folders by their names and aliases', async () => {
    const dir = await folder({
      'train/a.png': '',
      'train/metadata.jsonl': lines({ file_name: 'a.png', text: 'train' }),
      'dev/b.png': '',
      'dev/metadata.jsonl': lines({ file_name: 'b.png', text: 'dev' }, 'broken'),
    });
    const caption = async (split?: string) => (await openDataset(dir, { split })).examples[0].caption;
    expect(await listSplits(dir)).toEqual(['train', 'validation']);
    expect([await caption(), await caption('train')]).toEqual(['train', 'train']);
    for (const split of ['validation', 'val', 'valid', 'dev']) {
      const { problems } = await problemsOf(openDataset(dir, { split }));
      expect(problems.map((p) => p.source)).toEqual([`${join(dir, 'dev/metadata.jsonl')}:2`]);
    }
    expect((await problemsOf(openDataset(dir, { split: 'test' }))).message).toContain(
      'it has "train", "validation"',
    );
  });

  it('finds splits in a column', async () => {
    const row = (text: string, split?: unknown) => ({ image: 'a.png', caption: text, split });
    const dir = await folder({
      'a.png': '',
      'ok.jsonl': lines(row('1', 'test'), row('2', 'train'), row('3', 'val')),
      'gap.jsonl': lines(row('1', 'train'), row('2'), row('3', 7)),
    });
    const captions = async (split?: string) =>
      (await openDataset(join(dir, 'ok.jsonl'), { split })).examples.map((e) => e.caption);
    expect([await captions(), await captions('valid'), await captions('test')]).toEqual([
      ['2'],
      ['3'],
      ['1'],
    ]);
    const { problems } = await problemsOf(openDataset(join(dir, 'gap.jsonl')));
    expect(problems.map((p) => p.found)).toEqual(['nothing', '7']);
  });

  it('lists every bad row in one error, in file order', async () => {
    const dir = await folder({
      'a.png': '',
      'rows.jsonl': Buffer.concat([
        Buffer.from(
          lines(
            { image: 'a.png', caption: 'good' },
            'not json',
            '[1]',
            { image: 'a.png' },
            { image: 'a.png', caption: '  ' },
            { image: 'a.png', caption: 7 },
            { image: 'gone.png', caption: 'x' },
            { caption: 'x' },
            { image: 'a.png', question: 'q' },
            { image: 'https://example.org/a.png', caption: 'x' },
            { image: 'a\0.png', caption: 'x' },
          ),
        ),
        Buffer.from([0x22, 0xff, 0x22]),
      ]),
    });
    const file = join(dir, 'rows.jsonl');
    const error = await problemsOf(openDataset(file));
    expect(error.problems.map((p) => `${p.source.slice(file.length)} ${p.expected} / ${p.found}`)).toEqual([
      expect.stringMatching(/^:2 one JSON object \/ "not json" \(/),
      ':3 one JSON object / [1]',
      ':4 "caption" (or "text"), or "question" and "answer" / columns image',
      ':5 words in "caption" / an empty string',
      ':6 a string in "caption" / 7',
      `:7 an image file / no file "gone.png" (looked in ${dir} and the folders there)`,
      ':8 an image path in "image" or "file_name" / columns caption',
      ':9 an "answer" to the question / columns image, question',
      ':10 a path of a local image / the address "https://example.org/a.png"; download it first (img2dataset does)',
      expect.stringMatching(/^:11 an image file/),
      ':12 UTF-8 text / bytes that are not UTF-8; save the file as UTF-8',
    ]);
    expect(error.message).toMatch(/11 of 12 rows cannot be used/);
  });

  it('shows 20 problems and the number of the others', async () => {
    const dir = await folder({
      'rows.jsonl': lines(...Array.from({ length: 33 }, (_, i) => ({ image: `${i}.png`, caption: 'x' }))),
    });
    const { message, problems } = await problemsOf(openDataset(join(dir, 'rows.jsonl')));
    expect(problems).toHaveLength(33);
    expect(message.split('\n')).toHaveLength(22);
    expect(message).toMatch(/… and 13 more$/);
  });

  it('names a problem that many rows have once, beside the others', async () => {
    const rows = Array.from({ length: 8000 }, (_, i) => ({ image: 'a.png', legend: `a dog ${i}` }));
    const dir = await folder({ 'rows.jsonl': lines(...rows, { image: 'gone.png', caption: 'x' }) });
    const { message } = await problemsOf(openDataset(join(dir, 'rows.jsonl')));
    expect(message.split('\n').slice(1)).toEqual([
      expect.stringMatching(
        /rows\.jsonl:1 and 7,999 more rows \(the last: 8000\): expected "caption".*legend/,
      ),
      expect.stringMatching(/rows\.jsonl:8001: .*no file "gone\.png"/),
    ]);
  });

  it('names the problem of a path', async () => {
    const dir = await folder({
      'notes.txt': '',
      'bare/notes.txt': '',
      'empty.jsonl': '\n',
      'two/val/metadata.jsonl': '',
      'two/dev/metadata.jsonl': '',
    });
    expect((await problemsOf(openDataset(join(dir, 'gone')))).message).toMatch(/no such folder or file/);
    expect((await problemsOf(openDataset(join(dir, 'notes.txt')))).message).toMatch(
      /expected a folder, or metadata.jsonl or another .jsonl/,
    );
    expect((await problemsOf(openDataset(join(dir, 'bare')))).message).toMatch(
      /expected metadata.jsonl or another .jsonl.*found 1 .txt/,
    );
    expect((await problemsOf(openDataset(join(dir, 'empty.jsonl')))).message).toMatch(/no rows/);
    expect((await problemsOf(openDataset(join(dir, 'two')))).message).toMatch(/dev\/ and val\/ both mean/);
    expect((await problemsOf(openDataset('a\0b'))).message).toMatch(/no such folder/);
  });

  it('limits to the first rows, or to a random choice that is contained in that of a larger limit', async () => {
    const rows = Array.from({ length: 50 }, (_, i) => ({ image: 'a.png', caption: String(i) }));
    const file = join(await folder({ 'a.png': '', 'r.jsonl': lines(...rows) }), 'r.jsonl');
    const pick = async (o: { limit?: number; seed?: number }) =>
      (await openDataset(file, o)).examples.map((e) => e.caption!);
    expect(await pick({ limit: 3 })).toEqual(['0', '1', '2']);
    const [ten, twenty] = [await pick({ limit: 10, seed: 1 }), await pick({ limit: 20, seed: 1 })];
    expect(new Set([...twenty, ...ten]).size).toBe(20);
    expect(ten).toEqual([...ten].sort((a, b) => Number(a) - Number(b)));
    expect(await pick({ limit: 10, seed: 2 })).not.toEqual(ten);
    expect(await pick({ limit: 99, seed: 2 })).toHaveLength(50);
    await problemsOf(openDataset(file, { limit: 0 }));
  });
});

describe('JSON Lines of any bytes', () => {
  const value = fc.oneof(fc.jsonValue(), fc.constantFrom('a.png', '', 'train', 7, null));
  const row = fc.dictionary(
    fc.constantFrom('image', 'file_name', 'caption', 'text', 'question', 'answer', 'split', '__proto__', 'x'),
    value,
  );
  const line = fc.oneof(
    row.map((r) => Buffer.from(JSON.stringify(r))),
    fc.string({ unit: 'binary' }).map((s) => Buffer.from(s)),
    fc.uint8Array({ maxLength: 40 }).map((b) => Buffer.from(b)),
  );

  it('give a row or a problem for every line that is not blank', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        const { rows, problems } = parseJsonl(bytes, 'f');
        const sources = [...rows, ...problems].map((r) => r.source);
        expect(new Set(sources).size).toBe(sources.length);
      }),
    );
  });

  it('give examples or a DataError, nothing else', async () => {
    const dir = await folder({ 'a.png': '' });
    const file = join(dir, 'r.jsonl');
    await fc.assert(
      fc.asyncProperty(
        fc.array(line, { maxLength: 6 }),
        fc.option(fc.constantFrom('train', 'val', 'x')),
        async (all, split) => {
          await writeFile(file, Buffer.concat(all.flatMap((l) => [l, Buffer.from('\n')])));
          try {
            const { examples } = await openDataset(file, { split: split ?? undefined });
            expect(examples.every((e) => e.image === join(dir, 'a.png') && (e.caption ?? e.answer))).toBe(
              true,
            );
          } catch (error) {
            if (!(error instanceof DataError)) throw error;
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});

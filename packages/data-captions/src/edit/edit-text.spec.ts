import { mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../../spec/model-folder';
import { openSplits } from '../dataset';
import { allCaptions } from '../example';
import { editText } from './edit-text';
import { cellPlaces, csvCell } from './csv-cell';
import { placeInJson } from './json-place';

/** A data set of two pictures and one file, opened. */
async function data(name: string, text: string, ending = '.png') {
  const dir = await temporaryFolder();
  for (const picture of ['a', 'b']) await writeFile(join(dir, picture + ending), 'x');
  await mkdir(join(dir, name, '..'), { recursive: true });
  await writeFile(join(dir, name), text);
  const rows = async () => (await openSplits(dir)).splits.flatMap(({ examples }) => examples);
  return { dir, rows, read: () => readFile(join(dir, name), 'utf8') };
}

const NEW = 'a "red" mug,\tä 🍵';

/** Forms of one data set: the second picture's (last) caption is "a lamp". */
const FORMS: [name: string, text: string, index: number][] = [
  [
    'metadata.jsonl',
    '{"file_name":"a.png", "text" : "a lamp"}\r\n\r\n{"text":"a lamp","file_name":"b.png","id":1.50}\r\n',
    0,
  ],
  ['rows.jsonl', '\ufeff{"image":"a.png","caption":"a"}\n{"image":"b.png","caption":["a mug","a lamp"]}', 1],
  [
    'rows.json',
    '[\n  {"image": "a.png", "caption": "\\u0061 mug"},\n  {"image": "b.png", "caption": "a lamp"}\n]\n',
    0,
  ],
  [
    'coco.json',
    '{"images":[{"id":7,"file_name":"a.png"},{"id":8,"file_name":"b.png"}],"annotations":[{"id":1,"image_id":8,"caption":"a mug"},{"id":2,"image_id":7,"caption":"a mug"},{"id":3,"image_id":8,"caption":"a lamp"}]}',
    1,
  ],
  ['rows.csv', 'image,caption,n\r\na.png,"a ""lamp"", lit",1\r\nb.png,a lamp,2\r\n', 0],
  ['rows.tsv', 'image\tcaption\na.png\ta lamp\nb.png\ta lamp', 0],
  ['semicolon.csv', 'sep=;\nimage;caption\na.png;"two\nlines"\nb.png;"a lamp"\n', 0],
  ['b.txt', '\n  a lamp  \n', 0],
];

describe('editText', () => {
  it.each(FORMS)('changes one text of %s, and nothing else', async (name, text, index) => {
    const { dir, rows, read } = await data(name, text);
    if (name === 'b.txt') await writeFile(join(dir, 'a.txt'), 'a mug');
    const before = await rows();
    const row = before.at(-1)!;
    expect(allCaptions(row)[index]).toBe('a lamp');
    await editText({ source: row.source, role: 'caption', index, from: 'a lamp', to: NEW });
    const after = await rows();
    expect(allCaptions(after.at(-1)!)[index]).toBe(NEW);
    expect(after.slice(0, -1)).toEqual(before.slice(0, -1));
    await editText({ source: row.source, role: 'caption', index, from: NEW, to: 'a lamp' });
    expect((await read()).replaceAll('"', '')).toBe(text.replaceAll('"', ''));
    expect((await readdir(dir)).filter((file) => file.endsWith('.tmp'))).toEqual([]);
  });

  it('changes questions and answers', async () => {
    const { rows, read } = await data('qa.jsonl', '{"image":"a.png","question":"what?","answer":"a mug"}\n');
    const [{ source }] = await rows();
    await editText({ source, role: 'question', index: 0, from: 'what?', to: 'which?' });
    await editText({ source, role: 'answer', index: 0, from: 'a mug', to: 'a cup' });
    expect(await read()).toBe('{"image":"a.png","question":"which?","answer":"a cup"}\n');
  });

  it('refuses a row that was changed meanwhile, an empty text and a file of another kind, and changes nothing', async () => {
    const text = '{"image":"a.png","caption":"a mug"}\n';
    const { dir, rows, read } = await data('rows.jsonl', text);
    const [{ source }] = await rows();
    const edit = { source, role: 'caption', index: 0, from: 'a lamp', to: 'a cup' } as const;
    await expect(editText(edit)).rejects.toThrow(
      'expected "a lamp", found "a mug": the file was changed meanwhile',
    );
    await expect(editText({ ...edit, from: 'a mug', to: ' ' })).rejects.toThrow('expected words');
    await expect(editText({ ...edit, source: join(dir, 'x.parquet:1') })).rejects.toThrow('cannot be');
    expect(await read()).toBe(text);
  });

  it('keeps a symbolic link, and changes the file that it leads to', async () => {
    const { dir, rows } = await data('real.json.kept', '{"image":"a.png","caption":"a mug"}\n');
    await symlink(join(dir, 'real.json.kept'), join(dir, 'rows.jsonl'));
    const [{ source }] = await rows();
    await editText({ source, role: 'caption', index: 0, from: 'a mug', to: 'a cup' });
    expect(await readFile(join(dir, 'real.json.kept'), 'utf8')).toContain('a cup');
  });
});

it('finds every value of any JSON', () => {
  fc.assert(
    fc.property(fc.json(), fc.integer({ min: 0, max: 3 }), (json, space) => {
      const value: unknown = JSON.parse(json);
      const text = JSON.stringify(value, null, space);
      const visit = (inner: unknown, path: (string | number)[]) => {
        const place = placeInJson(text, path)!;
        expect(JSON.parse(text.slice(...place))).toEqual(inner);
        if (Array.isArray(inner)) inner.forEach((one, i) => visit(one, [...path, i]));
        else if (typeof inner === 'object' && inner !== null)
          for (const [key, one] of Object.entries(inner)) if (key !== '__proto__') visit(one, [...path, key]);
      };
      visit(value, []);
    }),
  );
});

it('finds the cells of any CSV record', () => {
  fc.assert(
    fc.property(fc.array(fc.string(), { minLength: 1 }), (cells) => {
      const written = cells.map((cell) => csvCell(cell, ';', ''));
      const record = written.join(';');
      expect(cellPlaces(record, ';').map((place) => record.slice(...place))).toEqual(written);
    }),
  );
});

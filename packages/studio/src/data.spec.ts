import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Client } from '../spec/studio';
import { client, MARKUP, tinyFolder } from '../spec/studio';
import type { DataPage, DataPreview, Listing } from './api';

let studio: Client;
let root: string;
beforeAll(async () => {
  ({ root } = await tinyFolder());
  studio = await client(root, [process.execPath, '-e', '']);
});
afterAll(() => studio.studio.close());

const json = async <T>(path: string) => (await (await studio.get(path)).json()) as T;

it('lists folders and data, and marks folders that are data', async () => {
  for (const [folder, names] of Object.entries({
    photos: ['a.png', 'a.txt'],
    pictures: ['a.png', 'b.txt'],
  })) {
    await mkdir(join(root, folder));
    for (const name of names) await writeFile(join(root, folder, name), '');
  }
  const { parent, entries } = await json<Listing>('/api/files?path=.');
  expect(parent).toBeUndefined();
  expect(entries).toEqual([
    { name: 'data', path: 'data', kind: 'data' },
    { name: 'photos', path: 'photos', kind: 'data' },
    { name: 'pictures', path: 'pictures', kind: 'folder' },
    { name: 'runs', path: 'runs', kind: 'folder' },
  ]);
});

it('finds rows by their texts and places, and keeps their numbers', async () => {
  const all = await json<DataPage>('/api/data?path=data');
  expect(all.splits).toEqual([{ rows: 3, bad: 0 }]);
  const found = await json<DataPage>('/api/data?path=data&search=BLUE');
  expect(found.rows).toEqual([all.rows[2]]);
  expect(found.rows[0].index).toBe(2);
  expect(
    (await json<DataPage>('/api/data?path=data&search=metadata.jsonl:2')).rows[0].texts[0].text,
  ).toContain(MARKUP);
});

it('has small pictures of the rows', async () => {
  const answer = await studio.get('/api/data/picture?path=data&index=0&side=128');
  expect(answer.headers.get('content-type')).toBe('image/webp');
  expect(Buffer.from(await answer.arrayBuffer()).toString('latin1', 8, 12)).toBe('WEBP');
});

it('shows the columns, so that they can be chosen', async () => {
  const { columns, roles } = await json<DataPreview>('/api/data/preview?path=data&question_column=text');
  expect(columns).toEqual(['file_name', 'text']);
  expect(roles).toEqual({ image: 'file_name', question: 'text' });
});

it('changes a text in its file, and refuses a second change that does not know of it', async () => {
  const [row] = (await json<DataPage>('/api/data?path=data')).rows;
  const change = {
    path: 'data',
    source: row.source,
    ...row.texts[0],
    from: 'a red thing',
    to: 'a dark red thing',
  };
  expect((await studio.post('/api/data/text', change)).status).toBe(204);
  expect((await json<DataPage>('/api/data?path=data')).rows[0].texts[0].text).toBe('a dark red thing');
  const again = await studio.post('/api/data/text', change);
  expect(again.status).toBe(422);
  expect(await again.text()).toContain('was changed meanwhile');
  const lines = (await readFile(join(root, 'data', 'metadata.jsonl'), 'utf8')).split('\n');
  expect(lines[0]).toBe('{"file_name":"red.png","text":"a dark red thing"}');
});

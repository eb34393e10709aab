import { copyFile, link, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../spec/model-folder';
import { openDataset } from './dataset';
import type { Example } from './example';
import { countsOf, groupByName, lossRows } from './group';

const pictures = fileURLToPath(new URL('../fixtures/images/', import.meta.url));

/** Two pictures, and other names of the first one. */
async function folder(): Promise<string> {
  const dir = await temporaryFolder();
  await copyFile(join(pictures, 'rgb-64x64.png'), join(dir, 'b.png'));
  await copyFile(join(pictures, 'rgb-64x64.png'), join(dir, 'copy.png'));
  await copyFile(join(pictures, 'rgba-33x47.png'), join(dir, 'a.png'));
  await symlink(join(dir, 'b.png'), join(dir, 'symbolic.png'));
  await link(join(dir, 'b.png'), join(dir, 'hard.png'));
  return dir;
}

async function open(rows: object[], options: Parameters<typeof openDataset>[1]) {
  const dir = await folder();
  const file = join(dir, 'rows.jsonl');
  await writeFile(file, rows.map((row) => JSON.stringify(row)).join('\n'));
  const { examples } = await openDataset(file, options);
  return examples.map((example) => ({ ...example, image: example.image.slice(dir.length + 1) }));
}

describe('examples for evaluation', () => {
  it('have all captions of a picture, under any of its names, in file order', async () => {
    const names = ['b.png', './b.png', 'copy.png', '../' + 'x/../b.png', 'symbolic.png', 'hard.png'];
    const rows = names.map((image, i) => ({
      image: image.replace('../x/../', './'),
      caption: `caption ${i}`,
    }));
    rows.splice(2, 0, { image: 'a.png', caption: 'another' });
    const [first, second, ...more] = await open(rows, { references_for: 'caption' });
    expect(more).toEqual([]);
    expect(first.captions).toEqual(names.map((_, i) => `caption ${i}`));
    expect(first).toMatchObject({ image: 'b.png', caption: 'caption 0' });
    expect(first.rows).toHaveLength(names.length);
    expect(second).toMatchObject({ image: 'a.png', caption: 'another' });
    expect(second).not.toHaveProperty('captions');
    expect(countsOf([first, second])).toEqual({ examples: 2, rows: 7, pictures: 2 });
    expect(await open(rows, {})).toHaveLength(7); // training has one example for each row
  });

  it('join the answers to one question, and keep other questions apart', async () => {
    const rows = [
      { image: 'a.png', question: 'what  is it?', answer: 'red' },
      { image: 'b.png', question: 'what is it?', answer: 'blue' },
      { image: 'a.png', question: 'how many?', answers: ['two', 'three', 'two'] },
      { image: 'a.png', question: 'what is it? ', answer: 'pink' },
    ];
    const of = async (list: object[]) =>
      (await open(list, { references_for: 'vqa' })).map(({ image, answer, answers }) => ({
        image,
        answer,
        answers,
      }));
    expect(await of(rows)).toEqual([
      { image: 'a.png', answer: 'pink', answers: ['red', 'pink'] }, // a tie: the first by code units
      { image: 'b.png', answer: 'blue' },
      { image: 'a.png', answer: 'two', answers: ['two', 'three', 'two'] },
    ]);
    expect((await of([...rows].reverse())).map(({ answer }) => answer)).toEqual(['pink', 'two', 'blue']);
  });

  it('are what a limit counts, and its random choice is the same in any order of rows', async () => {
    const row = (image: string, i: number) => ({ image, caption: `caption ${i}` });
    const rows = [...'baabba'].map((name, i) => row(`${name}.png`, i));
    const chosen = async (list: object[], seed: number) =>
      (await open(list, { references_for: 'caption', limit: 1, seed })).map(({ image, captions }) => [
        image,
        captions!.length,
      ]);
    for (const seed of [0, 1, 2, 3]) {
      const [one, ...more] = await chosen(rows, seed);
      expect(more).toEqual([]);
      expect(one[1]).toBe(3);
      expect(await chosen([...rows].reverse(), seed)).toEqual([one]);
    }
  });

  it('give one row for each caption to the loss', () => {
    const example = (image: string, captions: string[]): Example => ({
      image,
      caption: captions[0],
      captions,
      fields: {},
      source: 'f:1',
    });
    const rows = lossRows([example('a', ['1', '2']), example('b', ['3'])], 'caption');
    expect(rows.map(({ image, caption }) => image + caption)).toEqual(['a1', 'a2', 'b3']);
    expect(rows[0].captions).toBeUndefined();
    expect(groupByName(rows, 'caption').map(({ captions, caption }) => captions ?? caption)).toEqual([
      ['1', '2'],
      '3',
    ]);
  });
});

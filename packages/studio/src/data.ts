/** Browsing and editing a data set. */
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import {
  allAnswers,
  allCaptions,
  DataError,
  editText,
  fileOfImage,
  layoutOf,
  openSplits,
  previewData,
  problemLines,
  thumbnail,
} from '@blip2/data-captions';
import type { DataPreview, Example, SplitContents } from '@blip2/data-captions';
import type { DataPage, DataPlace, DataRow, TextChange } from './api';
import type { Folders } from './folders';
import { PathError } from './folders';
import { checkedPlace } from './settings';

const PAGE = 24;
const MOST_PROBLEMS = 50;
/** Data sets that stay in memory. */
const KEPT = 2;

interface Opened {
  splits: SplitContents[];
  rows: { split?: string; example: Example }[];
  /** of the path, when it was read */
  changed: number;
}

export interface DataView {
  page(place: DataPlace, query: { search?: string; split?: string; from?: number }): Promise<DataPage>;
  preview(place: DataPlace): Promise<DataPreview>;
  /** WebP. @throws PathError for a picture outside of the folders, or one that cannot be read */
  picture(place: DataPlace, index: number, side: number): Promise<Buffer>;
  change(change: TextChange): Promise<void>;
}

export function dataView(folders: Folders): DataView {
  const kept = new Map<string, Opened>();
  const open = async (given: DataPlace): Promise<{ path: string; opened: Opened }> => {
    const place = await checkedPlace(given, folders);
    const { path } = place;
    const key = JSON.stringify([path, layoutOf(place)]);
    const changed = (await stat(path)).mtimeMs;
    let opened = kept.get(key);
    if (opened?.changed !== changed) {
      opened = { ...(await read(path, place)), changed };
      kept.delete(key);
      kept.set(key, opened);
      for (const old of [...kept.keys()].slice(0, -KEPT)) kept.delete(old);
    }
    return { path, opened };
  };
  return {
    page: async (place, { search = '', split, from = 0 }) => {
      const { path, opened } = await open(place);
      const wanted = search.trim().toLowerCase();
      const found = opened.rows.flatMap((row, index) => {
        if (split !== undefined && split !== '' && row.split !== split) return [];
        const made = rowOf(row.example, row.split, index);
        return wanted === '' || textOf(made).includes(wanted) ? [made] : [];
      });
      return {
        path: folders.shown(path),
        splits: opened.splits.map(({ split: name, examples, bad }) => ({
          name,
          rows: examples.length,
          bad: bad.length,
        })),
        found: found.length,
        rows: found.slice(from, from + PAGE),
        problems: problemsOf(opened.splits),
      };
    },
    preview: async (given) => {
      const place = await checkedPlace(given, folders);
      return previewData(place.path, layoutOf(place));
    },
    picture: async (place, index, side) => {
      const { opened } = await open(place);
      const image = opened.rows[index]?.example.image;
      if (image === undefined) throw new PathError(`row ${index}: there is no such row`, 404);
      return pictureOf(folders, image, side);
    },
    change: async ({ source, role, index, from, to, ...place }) => {
      const { opened } = await open(place);
      const row = opened.rows.find(({ example }) => example.source === source);
      if (!row) throw new DataError(`${source}: is no row of this data; load it again`);
      await editText({ source, role, index, from, to }, layoutOf(place), folders.inside);
      kept.clear();
    },
  };
}

async function read(path: string, place: DataPlace): Promise<Omit<Opened, 'changed'>> {
  const { splits } = await openSplits(path, layoutOf(place));
  const rows = splits.flatMap(({ split, examples }) => examples.map((example) => ({ split, example })));
  return { splits, rows };
}

/** A small copy of a picture that lies inside the folders. @throws PathError */
export async function pictureOf(folders: Folders, image: string, side: number): Promise<Buffer> {
  await folders.inside(fileOfImage(image));
  const uri = await thumbnail(image, side);
  if (uri === undefined) throw new PathError('the picture cannot be read', 404);
  return Buffer.from(uri.slice(uri.indexOf(',') + 1), 'base64');
}

function rowOf(example: Example, split: string | undefined, index: number): DataRow {
  const { source, question } = example;
  const texts: DataRow['texts'] = allCaptions(example).map((text, i) => ({
    role: 'caption',
    index: i,
    text,
  }));
  if (question !== undefined) texts.push({ role: 'question', index: 0, text: question });
  allAnswers(example).forEach((text, i) => texts.push({ role: 'answer', index: i, text }));
  return { index, split, source, place: basename(source), texts };
}

const textOf = ({ texts, place }: DataRow) =>
  [place, ...texts.map(({ text }) => text)].join('\n').toLowerCase();

function problemsOf(splits: SplitContents[]): DataPage['problems'] {
  const lines = problemLines(
    splits.flatMap(({ bad }) => bad),
    MOST_PROBLEMS,
  );
  return lines.map((line) => {
    const [, source, text] = /^(.*?): (expected .*)$/s.exec(line) ?? [line, '', line];
    return { source, text };
  });
}

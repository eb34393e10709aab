// Writes the people grid in the format of user data: one folder per split with metadata.jsonl and PNG files.
import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { houseCaption, questions } from './captions';
import { emojiIndex, sourceVersions } from './emoji-index';
import { peopleGrid, SPLITS, splitGrid } from './people-grid';
import type { PeopleRow, SplitName } from './people-grid';
import { mapPool, renderPng } from './render';

export type PeopleTask = 'caption' | 'vqa';

export interface PeopleOptions {
  output: string;
  task?: PeopleTask;
  /** Pixels per side. */
  size?: number;
  /** Seed of the split by triple. */
  seed?: number;
  /** At most this many images per split, for a quick look. */
  limit?: number;
  /** Renders again even if the folder is complete. */
  force?: boolean;
}

export interface PeopleFolder {
  output: string;
  /** False if a complete folder with the same sources and options existed. */
  rendered: boolean;
  /** Images per split. */
  images: Record<SplitName, number>;
  /** Lines of metadata.jsonl per split: as many as images, three times as many for questions. */
  rows: Record<SplitName, number>;
  seconds: number;
}

/** Increase it when the layout of the folder changes, so that older folders are rendered again. */
const LAYOUT: Record<PeopleTask, number> = { caption: 1, vqa: 2 };

type Manifest = { key: string; sources: Record<string, string> } & Pick<PeopleFolder, 'images' | 'rows'>;

/**
 * Renders the grid into `output/{train,validation,test}/`; a complete folder is not rendered again.
 * The new folder is written next to the old one and then renamed, so an interrupted run leaves no incomplete folder.
 */
export async function writePeople(options: PeopleOptions): Promise<PeopleFolder> {
  const { output, task = 'caption', size = 64, seed = 0, limit, force = false } = options;
  const start = performance.now();
  const sources = sourceVersions();
  const key = createHash('sha256')
    .update(JSON.stringify({ LAYOUT: LAYOUT[task], sources, task, size, seed, limit }))
    .digest('hex');
  const there = force ? undefined : await readManifest(output);
  if (there?.key === key) return report(output, false, there, start);

  const split = splitGrid(peopleGrid(emojiIndex()), seed);
  const temporary = `${output}.partial-${process.pid}`;
  await rm(temporary, { recursive: true, force: true });
  try {
    const manifest: Manifest = { key, sources, images: zeroCounts(), rows: zeroCounts() };
    for (const name of SPLITS) {
      const rows = split[name].slice(0, limit);
      manifest.images[name] = rows.length;
      manifest.rows[name] = await writeSplit(join(temporary, name), rows, task, size);
    }
    await writeFile(join(temporary, MANIFEST), JSON.stringify(manifest, null, 2) + '\n');
    await mkdir(dirname(output), { recursive: true });
    await rm(output, { recursive: true, force: true });
    await rename(temporary, output);
    return report(output, true, manifest, start);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

const MANIFEST = 'manifest.json';

async function readManifest(folder: string): Promise<Manifest | undefined> {
  try {
    return JSON.parse(await readFile(join(folder, MANIFEST), 'utf8')) as Manifest;
  } catch {
    return undefined; // absent or damaged: render
  }
}

function zeroCounts(): Record<SplitName, number> {
  return { train: 0, validation: 0, test: 0 };
}

function report(output: string, rendered: boolean, from: Manifest, start: number): PeopleFolder {
  const { images, rows } = from;
  return { output, rendered, images, rows, seconds: (performance.now() - start) / 1000 };
}

async function writeSplit(
  folder: string,
  rows: PeopleRow[],
  task: PeopleTask,
  size: number,
): Promise<number> {
  await mkdir(folder, { recursive: true });
  await mapPool(rows, async (row) => writeFile(join(folder, fileName(row)), await renderPng(row, size)));
  const lines = rows.flatMap((row) => metadata(row, task)).map((line) => JSON.stringify(line));
  await writeFile(join(folder, 'metadata.jsonl'), lines.join('\n') + '\n');
  return lines.length;
}

/** `noto-1f468-200d-1f373.png` */
export function fileName(row: Pick<PeopleRow, 'style' | 'hex'>): string {
  return `${row.style}-${row.hex}.png`;
}

/** The lines of metadata.jsonl for one drawing. */
export function metadata(row: PeopleRow, task: PeopleTask): Record<string, string>[] {
  const { subject, activity, tone, style, label } = row;
  const fields = { subject, activity, tone, style, label };
  const file_name = fileName(row);
  if (task === 'caption') return [{ file_name, text: houseCaption(row), ...fields }];
  return questions(row).map((pair) => ({ file_name, ...pair, ...fields }));
}

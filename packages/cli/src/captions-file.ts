/**
 * A file of captions or answers, one JSON object per picture, that a later call continues: rows that are there are skipped, and the
 * settings in `.NAME.settings.json` beside it must be the same. Rows have only the columns that training reads, or, of a shard, the key
 * of the picture in place of its path.
 */
import { existsSync } from 'node:fs';
import { appendFile, open, rm, truncate, writeFile } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import { lockFile, makeFolders, readRegular, writeFileAtomic } from '@blip2/weights/node';
import type { Texts, Writer } from './writer';

/** What the texts of a file depend on, by name. */
export type Settings = Record<string, unknown>;

/** How a picture is named in a row. */
export interface Naming {
  column: 'image' | 'key';
  toRow(image: string, folder: string): string;
  fromRow(name: string, folder: string): string;
}

/** By its path, in rows relative to the folder of the file. */
export const PATHS: Naming = {
  column: 'image',
  toRow: (image, folder) => relative(folder, resolve(image)).split(sep).join('/'),
  fromRow: (name, folder) => resolve(folder, name),
};

/** By its key in a shard. */
export const KEYS: Naming = { column: 'key', toRow: (key) => key, fromRow: (name) => name };

export interface CaptionsFile extends Writer {
  /** in place of `close`: removes the file and its settings while other processes are still locked out */
  discard(): Promise<void>;
}

interface Opening {
  settings: Settings;
  overwrite?: boolean;
  naming?: Naming;
  say: (text: string) => void;
}

/**
 * Opens a file to continue it, or makes a new one. A last line that was not written to its end is removed.
 * @throws Error if the file has rows of other settings, or a line that is no row; LockedError if another process writes it
 */
export async function openCaptionsFile(
  file: string,
  { settings, overwrite, naming = PATHS, say }: Opening,
): Promise<CaptionsFile> {
  const folder = dirname(resolve(file));
  await makeFolders(folder);
  const beside = (ending: string) => join(folder, `.${basename(file)}.${ending}`);
  const record = beside('settings.json');
  const release = await lockFile(beside('lock'));
  try {
    if (overwrite || !existsSync(file)) await writeFile(file, '');
    const done = await rowsOf(file, naming, say);
    if (done.length > 0) await requireSame(file, record, settings);
    else await writeFileAtomic(record, JSON.stringify(settings, null, 2) + '\n');
    const there = new Set(done.map((name) => naming.fromRow(name, folder)));
    return {
      has: (image) => there.has(naming.fromRow(image, '')),
      write: async (rows) => {
        await appendFile(file, rows.map((row) => lineOf(row, naming, folder)).join('')).catch(
          (error: Error) => {
            const advice = 'the rows before it are kept, and the same command continues the file';
            throw new Error(`${file}: cannot be written: ${error.message}; ${advice}`, { cause: error });
          },
        );
      },
      close: async () => {
        const handle = await open(file, 'r+');
        await handle.sync().finally(() => handle.close());
        await release();
      },
      discard: async () => {
        for (const name of [file, record]) await rm(name, { force: true });
        await release();
      },
    };
  } catch (error) {
    await release();
    throw error;
  }
}

function lineOf({ image, question, key, texts, error }: Texts, naming: Naming, folder: string): string {
  const name = { [naming.column]: naming.toRow(image, folder), ...(question !== undefined && { question }) };
  const text = texts.length > 1 ? texts : texts[0];
  return JSON.stringify(error === undefined ? { ...name, [key]: text } : { ...name, error }) + '\n';
}

/** The images of the rows. Repairs the end of the file. */
async function rowsOf(file: string, naming: Naming, say: (text: string) => void): Promise<string[]> {
  const bytes = await readRegular(file).catch((error: Error) => {
    throw new Error(`${file}: cannot be read: ${error.message}`, { cause: error });
  });
  const end = bytes.lastIndexOf(0x0a) + 1;
  const lines = bytes.subarray(0, end).toString('utf8').split('\n');
  const images = lines.flatMap((line, i) => {
    if (line.trim() === '') return [];
    const image = imageOf(line, naming);
    if (image !== undefined) return [image];
    throw new Error(
      `${file}:${i + 1}: expected a row such as {"${naming.column}": "photo.jpg", "caption": "…"}, found ${line.slice(0, 60)}; ` +
        'repair or delete the line, choose another --output, or start anew with --overwrite',
    );
  });
  if (end === bytes.length) return images;
  const last = imageOf(bytes.subarray(end).toString('utf8'), naming);
  if (last !== undefined) {
    await appendFile(file, '\n');
    return [...images, last];
  }
  await truncate(file, end);
  say(`${file}: the last line was not written to its end and is removed; its picture is done again`);
  return images;
}

function imageOf(line: string, { column }: Naming): string | undefined {
  try {
    const name = (JSON.parse(line) as Record<string, unknown>)[column];
    return typeof name === 'string' ? name : undefined;
  } catch {
    return undefined;
  }
}

/** @throws Error that lists what differs from the settings that the rows were made with */
export async function requireSame(
  file: string,
  record: string,
  now: Settings,
  advice = 'Set these back, choose another --output, or replace the file with --overwrite.',
): Promise<void> {
  const text = (await readRegular(record).catch(() => undefined))?.toString();
  if (text === undefined)
    throw new Error(
      `${file}: has rows, but ${record}, with the settings that they were made with, is missing, so more rows would be a mixture. ${advice}`,
    );
  const was = JSON.parse(text) as Settings;
  const show = (value: unknown) => (value === undefined ? 'not set' : JSON.stringify(value));
  const changed = [...new Set([...Object.keys(was), ...Object.keys(now)])].filter(
    (name) => show(was[name]) !== show(now[name]),
  );
  if (changed.length === 0) return;
  const lines = changed.map((name) => `  ${name}: ${changeOf(was[name], now[name], show)}`);
  throw new Error(`${file}: its rows were made with other settings:\n${lines.join('\n')}\n${advice}`);
}

/** Fingerprints are mappings of file name to hash, of which only the names are shown. */
function changeOf(was: unknown, now: unknown, show: (value: unknown) => string): string {
  if (typeof was !== 'object' || typeof now !== 'object' || !was || !now)
    return typeof was === 'object' || typeof now === 'object'
      ? `${was ? 'was given' : 'was not given'}, ${now ? 'is given' : 'is not given'}`
      : `was ${show(was)}, is ${show(now)}`;
  const [a, b] = [was as Settings, now as Settings];
  const files = [...new Set([...Object.keys(a), ...Object.keys(b)])].filter((name) => a[name] !== b[name]);
  return `other files: ${files.join(', ')}`;
}

/** Small data sets of any form, and what is read from them. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Layout } from '../src/layout';
import { openSplits } from '../src/dataset';
import { decodeImage } from '../src/decode-image';
import { allAnswers, allCaptions } from '../src/example';
import { expect } from 'vitest';
import { temporaryFolder } from './model-folder';

const pictures = fileURLToPath(new URL('../fixtures/datasets/csv/', import.meta.url));
/** Red, green and blue pictures of 8 × 8 pixels. */
export const [RED, GREEN] = await Promise.all([0, 1].map((i) => readFile(join(pictures, `${i}.png`))));
const NAMES: Record<string, string> = { '200,30,30': 'red', '30,160,40': 'green' };

export type Files = Record<string, string | Uint8Array>;

/** Writes files; a name that begins as a picture's colour gets that picture. */
export async function folderOf(files: Files): Promise<string> {
  const dir = await temporaryFolder();
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(dir, name)), { recursive: true });
    await writeFile(join(dir, name), content);
  }
  return dir;
}

/**
 * Every row of a data set as `split: colour: texts`, where the colour is that of the decoded picture; bad rows as
 * `split: bad: expected …, found …`.
 */
export async function rowsOf(path: string, layout: Layout = {}): Promise<string[]> {
  const { splits } = await openSplits(path, layout);
  const out: string[] = [];
  for (const { split, examples, bad } of splits) {
    const start = split === undefined ? '' : `${split}: `;
    for (const example of examples) {
      const { data } = await decodeImage(example.image);
      const colour = NAMES[data.subarray(0, 3).join()] ?? 'unknown';
      const texts =
        example.question === undefined ? allCaptions(example) : [example.question, ...allAnswers(example)];
      out.push(`${start}${colour}: ${texts.join(' / ')}`);
    }
    for (const { expected, found } of bad) out.push(`${start}bad: expected ${expected}, found ${found}`);
  }
  return out;
}

export const json = (value: unknown) => JSON.stringify(value, null, 1);
/** JSON Lines. */
export const lines = (...rows: unknown[]) => rows.map((row) => JSON.stringify(row)).join('\n');
/** With a byte order mark. */
export const utf16 = (text: string, bigEndian = false) => {
  const bytes = Buffer.from(`\ufeff${text}`, 'utf16le');
  return bigEndian ? bytes.swap16() : bytes;
};

/** A data set and its rows; the path is that of a file or folder in it. */
export type Case = [what: string, files: Files, expected: (string | RegExp)[], path?: string];
export const check = async (_: string, files: Files, expected: (string | RegExp)[], path = '') => {
  const found = await rowsOf(join(await folderOf(files), path));
  expect(found).toEqual(
    expected.map((row) => (typeof row === 'string' ? row : (expect.stringMatching(row) as string))),
  );
};

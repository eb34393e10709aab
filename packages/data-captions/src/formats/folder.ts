/** Names of pictures, and what is in a folder. */
import type { Dirent } from 'node:fs';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';

export const PICTURE_ENDINGS = ['jpg', 'jpeg', 'png', 'webp', 'gif', 'bmp', 'tif', 'tiff', 'avif'];
/** Also pictures that cannot be decoded here, so that they are named instead of overlooked. */
export const PICTURE_NAME = /\.(?:jpe?g|jfif|png|webp|gif|bmp|tiff?|avif|heic|heif|jxl|jp2)$/i;

const hidden = (name: string) => name.startsWith('.') || name === '__MACOSX' || name === 'Thumbs.db';

/** Entries of a folder in the order of their names, without hidden ones; none if it cannot be read. */
export function entriesOf(folder: string): Dirent[] {
  try {
    const entries = readdirSync(folder, { withFileTypes: true }).filter(({ name }) => !hidden(name));
    return entries.sort((a, b) => (a.name < b.name ? -1 : 1));
  } catch {
    return [];
  }
}

/** Folders below a folder, itself first, at most `depth` levels down and `most` in all. Links are not followed. */
export function foldersBelow(root: string, depth: number, most = 500): string[] {
  const found = [root];
  let level = [root];
  for (let d = 0; d < depth && level.length > 0 && found.length < most; d++) {
    level = level.flatMap((folder) =>
      entriesOf(folder)
        .filter((e) => e.isDirectory())
        .map(({ name }) => join(folder, name)),
    );
    found.push(...level);
  }
  return found.slice(0, most);
}

/** Paths of the pictures in a folder and all folders below it, by the endings of their names. Links to folders are not followed. */
export function picturesBelow(root: string): string[] {
  return foldersBelow(root, Infinity, Infinity).flatMap((folder) =>
    entriesOf(folder)
      .filter((e) => !e.isDirectory() && PICTURE_NAME.test(e.name))
      .map(({ name }) => join(folder, name)),
  );
}

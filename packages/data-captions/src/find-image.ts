/** Finds the picture that a row names: beside the data file, in the folders that people use, with or without its ending. */
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from 'node:path';
import type { Layout } from './layout';
import { show } from './errors';
import { isFile } from './find-files';
import { entriesOf, foldersBelow, PICTURE_ENDINGS, PICTURE_NAME } from './formats/folder';
import type { Bad, FindImage, Row } from './formats/row';

/** Levels below the data file's folder at which pictures are looked for. */
const DEPTH = 3;
/** Folders beside the data file's folder are used only under a name for pictures. */
const PICTURES = /image|img|photo|pic|jpe?g|png|train|val|test|coco|flick|dataset|vg_100k/i;

/** A finder for one data set; what it has listed it keeps. */
export function imageFinder(layout: Layout = {}): FindImage {
  const given = layout.image_folder === undefined ? undefined : resolve(layout.image_folder);
  const listings = new Map<string, Map<string, string>>();
  const listing = (folder: string) => {
    const known = listings.get(folder) ?? new Map(entriesOf(folder).map(({ name }) => [alike(name), name]));
    listings.set(folder, known);
    return known;
  };
  const usual = new Map<string, string[][]>();
  const usualFolders = (here: string) => {
    const known = usual.get(here) ?? [foldersBelow(here, DEPTH), foldersBeside(here)];
    usual.set(here, known);
    return known;
  };
  /** A path in a folder, whatever the case of its names and the form of its accents. */
  const inside = (folder: string, parts: string[]): string | undefined => {
    let path = folder;
    for (const part of parts) {
      const found = part === '..' ? part : listing(path).get(part);
      if (found === undefined) return undefined;
      path = join(path, found);
    }
    return isFile(path) ? path : undefined;
  };

  return (written, row, bad) => {
    if (/^[a-z][a-z0-9+.-]+:\/\//i.test(written) && !/^file:/i.test(written)) {
      bad('a path of a local image', `the address ${show(written)}; download it first (img2dataset does)`);
      return undefined;
    }
    const name = written.replace(/^file:\/\//i, '');
    if (isFarAway(name))
      return given
        ? (suffixIn([given], name) ?? notHere(written, [given], bad))
        : absolute(written, row.bases, bad);
    const names = spellings(name, row);
    const precise = given ? [given] : row.bases;
    for (const folder of precise)
      for (const one of names) if (isFile(resolve(folder, one))) return resolve(folder, one);
    const places = given ? [foldersBelow(given, DEPTH)] : usualFolders(row.bases[0]);
    const paths = names.map((one) =>
      alike(one)
        .split('/')
        .filter((part) => part !== '' && part !== '.'),
    );
    const hitsIn = (folders: string[]) => [
      ...new Set(folders.flatMap((folder) => firstOf(paths, (parts) => inside(folder, parts)) ?? [])),
    ];
    // another data set beside this one may have pictures of the same names
    const hits = firstOf(places, (folders) => nonEmpty(hitsIn(folders))) ?? [];
    const chosen = hits.length > 1 ? ofSplit(hits, row.split) : hits;
    if (chosen.length === 1) return chosen[0];
    if (chosen.length === 0) return notHere(written, precise, bad);
    bad(
      'one image file',
      `${show(written)} in ${chosen.length} folders, such as ${chosen.slice(0, 2).map(dirname).join(' and ')}; set image_folder`,
    );
    return undefined;
  };
}

const nonEmpty = <T>(items: T[]) => (items.length > 0 ? items : undefined);
const alike = (name: string) => name.normalize('NFC').toLowerCase();

function firstOf<T, R>(items: readonly T[], of: (item: T) => R | undefined): R | undefined {
  for (const item of items) {
    const found = of(item);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** An absolute path of Windows, or one of this kind of system that does not exist. */
const isFarAway = (name: string) =>
  /^(?:[a-z]:[\\/]|\\\\)/i.test(name) || (isAbsolute(name) && !isFile(name));

/** A file under one of the folders with the last parts of a path, as many as possible. */
function suffixIn(folders: readonly string[], name: string): string | undefined {
  const parts = name.split(/[\\/]/).filter((part) => part !== '' && part !== '..');
  for (let from = 1; from < Math.min(parts.length, 32); from++) {
    const found = firstOf(folders, (folder) => {
      const file = join(folder, ...parts.slice(from));
      return isFile(file) ? file : undefined;
    });
    if (found !== undefined) return found;
  }
  return undefined;
}

function absolute(written: string, bases: readonly string[], bad: Bad): undefined {
  const near = suffixIn(bases, written);
  const advice =
    near === undefined
      ? 'set image_folder to the folder of the pictures'
      : `write ${show(relative(bases[0], near))}`;
  bad('a path relative to the data file', `no file ${show(written)}; ${advice}`);
}

function notHere(written: string, folders: readonly string[], bad: Bad): undefined {
  const places = [...new Set(folders)];
  const more = places.length > 2 ? ` and ${places.length - 2} more folders` : '';
  bad(
    'an image file',
    `no file ${show(written)} (looked in ${places.slice(0, 2).join(', ')}${more} and the folders there)`,
  );
}

/** A name as written, with `/` for `\`, with an ending, and as COCO numbers its pictures. */
function spellings(name: string, { values }: Row): string[] {
  const names = name.includes('\\') ? [name, name.replaceAll('\\', '/')] : [name];
  if (PICTURE_NAME.test(name) || name.length > 200) return names;
  const bare = names[names.length - 1];
  const digits = /^\d{1,12}$/.test(bare) ? bare.padStart(12, '0') : undefined;
  const years =
    typeof values.data_subtype === 'string' ? [values.data_subtype] : ['train2014', 'val2014', 'test2015'];
  const coco =
    digits === undefined ? [] : [`${digits}.jpg`, ...years.map((year) => `COCO_${year}_${digits}.jpg`)];
  return [...names, ...PICTURE_ENDINGS.map((ending) => `${bare}.${ending}`), ...coco];
}

/** The folder above a data file's, and the folders beside it that have a name for pictures. */
function foldersBeside(here: string): string[] {
  const beside = entriesOf(dirname(here)).filter((e) => e.isDirectory() && PICTURES.test(e.name));
  const others = beside.map((e) => join(dirname(here), e.name)).filter((folder) => folder !== here);
  return [dirname(here), ...others.flatMap((folder) => foldersBelow(folder, 2, 100))];
}

/** The files in folders that are named after a split, if that leaves any. */
function ofSplit(files: string[], split: string | undefined): string[] {
  if (split === undefined) return files;
  const words =
    split === 'validation'
      ? /(?:^|[^a-z])(?:val|valid|validation|dev)(?![a-z])/i
      : new RegExp(`(?:^|[^a-z])${split.replace(/\W/g, '.')}(?![a-z])`, 'i');
  const found = files.filter((file) =>
    dirname(file)
      .split(sep)
      .some((part) => words.test(basename(part))),
  );
  return found.length > 0 ? found : files;
}

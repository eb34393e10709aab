/** Finds the files of a data set, with their format and split. */
import type { Stats } from 'node:fs';
import { readdirSync, statSync } from 'node:fs';
import { basename, dirname, extname, join } from 'node:path';
import { DataError } from './errors';

export type Format = 'jsonl' | 'csv' | 'json' | 'parquet' | 'tar';

export interface DataFile {
  file: string;
  format: Format;
  split?: string;
}

export const SPLITS = ['train', 'validation', 'test'];
const ALIASES: Record<string, string[]> = { validation: ['validation', 'val', 'valid', 'dev'] };
const METADATA = ['metadata.jsonl', 'metadata.csv'];
const FORMATS: Record<string, Format> = {
  '.jsonl': 'jsonl',
  '.ndjson': 'jsonl',
  '.csv': 'csv',
  '.tsv': 'csv',
  '.json': 'json',
  '.parquet': 'parquet',
  '.tar': 'tar',
  '.tgz': 'tar',
  '.gz': 'tar',
};
/** Folders of a data set in which its files may be. */
const SUBFOLDERS = ['', 'data', 'annotations', ...SPLITS, 'val', 'valid', 'dev'];

/** `val`, `valid` and `dev` mean `validation`. */
export const canonical = (split: string) => (ALIASES.validation.includes(split) ? 'validation' : split);

/** Stats of a path; undefined also for invalid paths (too long, a zero byte, a file used as a folder). */
function statOf(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}
export const isFile = (path: string) => statOf(path)?.isFile() ?? false;
const isFolder = (path: string) => statOf(path)?.isDirectory() ?? false;

/** The data files at a path. @throws DataError when there are none */
export function findFiles(root: string): DataFile[] {
  if (isFile(root)) return [oneFile(root)];
  if (!isFolder(root))
    throw new DataError(`${root}: there is no such folder or file; check the path of the data`);
  const metadata = metadataFile(root);
  if (metadata) return [{ file: metadata, format: formatOf(metadata)! }];
  const files = splitFolders(root);
  if (files.length > 0) return files;
  const found = annotationFiles(root);
  if (found.length > 0) return found;
  throw new DataError(
    `${root}: expected metadata.jsonl in it, or in train/, validation/ or test/ below it, or .jsonl, .csv, .tsv, .json, .parquet ` +
      `or .tar files; found none of these. Write one JSON object {"file_name", "text"} per line`,
  );
}

function oneFile(file: string): DataFile {
  const format = formatOf(file);
  if (format) return { file, format };
  throw new DataError(
    `${file}: expected a folder or a .jsonl file, or .csv, .tsv, .json, .parquet or .tar; write one JSON object {"image", "caption"} per line`,
  );
}

function formatOf(file: string): Format | undefined {
  if (/\.gz$/i.test(file) && !/\.tar\.gz$/i.test(file)) return undefined;
  return FORMATS[extname(file).toLowerCase()];
}

function metadataFile(folder: string): string | undefined {
  const found = METADATA.map((name) => join(folder, name)).filter(isFile);
  if (found.length > 1)
    throw new DataError(
      `${folder}: expected one metadata file, found metadata.jsonl and metadata.csv; delete one`,
    );
  return found[0];
}

function splitFolders(root: string): DataFile[] {
  const files: DataFile[] = [];
  for (const split of SPLITS) {
    const folders = (ALIASES[split] ?? [split]).filter((name) => metadataFile(join(root, name)));
    if (folders.length > 1) {
      throw new DataError(`${root}: ${folders.join('/ and ')}/ both mean the split "${split}"; keep one`);
    }
    if (folders.length === 1) {
      const file = metadataFile(join(root, folders[0]))!;
      files.push({ file, format: formatOf(file)!, split });
    }
  }
  return files;
}

/** The data files of one format in the folder and its usual subfolders. */
function annotationFiles(root: string): DataFile[] {
  const files = SUBFOLDERS.map((name) => join(root, name))
    .filter(isFolder)
    .flatMap((folder) =>
      readdirSync(folder)
        .sort()
        .map((name) => join(folder, name)),
    )
    .filter((file) => formatOf(file) && isFile(file) && !isSetting(file));
  const formats = new Set(files.map((file) => formatOf(file)!));
  if (formats.size > 1) {
    throw new DataError(
      `${root}: expected data files of one format, found ${files
        .map((f) => basename(f))
        .slice(0, 6)
        .join(', ')}; name the one to read`,
    );
  }
  return files.map((file) => ({ file, format: formatOf(file)!, split: splitOfName(file, root) }));
}

/** Whether a JSON file describes a downloaded data set instead of containing its data. */
const isSetting = (file: string) =>
  /^(?:dataset_infos?|state|manifest|config|package|tsconfig|.*_stats|license.*)\.json$/i.test(
    basename(file),
  );

/** The split in a file's name or folder: `train-00000-of-00002.parquet`, `captions_val2014.json`, `test/0001.tar`. */
function splitOfName(file: string, root: string): string | undefined {
  const folder = dirname(file) === root ? '' : basename(dirname(file));
  const word = /(?:^|[^a-z])(train|validation|valid|val|dev|test)(?![a-z])/;
  const found = word.exec(basename(file).toLowerCase())?.[1] ?? word.exec(folder.toLowerCase())?.[1];
  return found === undefined ? undefined : canonical(found);
}

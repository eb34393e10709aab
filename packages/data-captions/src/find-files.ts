/** Finds the files of a data set, with their format and split. */
import type { Stats } from 'node:fs';
import { existsSync, statSync } from 'node:fs';
import { basename, dirname, extname, join } from 'node:path';
import { DataError, show } from './errors';
import { hasTable } from './formats/dialect';
import { entriesOf, foldersBelow, PICTURE_NAME } from './formats/folder';
import { hasSidecars, sidecarsIn } from './formats/sidecars';
import { splitIn, SPLITS } from './splits';

export type Format = 'jsonl' | 'csv' | 'json' | 'parquet' | 'tar' | 'sidecars';

export interface DataFile {
  /** The folder, for sidecars. */
  file: string;
  format: Format;
  split?: string;
}

const METADATA = ['metadata.jsonl', 'metadata.csv', 'metadata.parquet'];
const FORMATS: Record<string, Format> = {
  '.jsonl': 'jsonl',
  '.ndjson': 'jsonl',
  '.csv': 'csv',
  '.tsv': 'csv',
  '.token': 'csv',
  '.json': 'json',
  '.parquet': 'parquet',
  '.tar': 'tar',
  '.tgz': 'tar',
  '.gz': 'tar',
};
/** Folders of a data set in which its files may be. */
const SUBFOLDERS =
  /^(?:data|annotations?|captions?|text|flickr8k_text|metadata|labels|json|questions|train(?:ing)?|val|valid|validation|dev|test(?:ing)?)$/i;

/** The forms that are read, for errors. */
export const FORMS =
  'metadata.jsonl or another .jsonl, .csv, .tsv, .json, .parquet or .tar, or pictures with a .txt or .caption of the same name beside ' +
  'each; docs/data.md lists all. Simplest: one JSON object {"image", "caption"} per line';

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
  refuseArrow(root);
  const found = annotationFiles(root);
  if (found.length > 0) return found;
  if (hasSidecars(root)) return [{ file: root, format: 'sidecars' }];
  throw new DataError(`${root}: expected ${FORMS}; found ${contentsOf(root)}`);
}

function oneFile(file: string): DataFile {
  const format = /\.txt$/i.test(file) && hasTable(file) ? 'csv' : formatOf(file);
  if (format) return { file, format };
  throw new DataError(`${file}: ${adviceFor(file) ?? `expected a folder, or ${FORMS}`}`);
}

function formatOf(file: string): Format | undefined {
  if (/\.gz$/i.test(file) && !/\.tar\.gz$/i.test(file)) return undefined;
  return FORMATS[extname(file).toLowerCase()];
}

/** What to do with files of other kinds that people have. */
function adviceFor(file: string): string | undefined {
  const quoted = `"${basename(file)}"`;
  if (/\.(?:xlsx?|xlsm|ods|numbers)$/i.test(file))
    return `${quoted} is a spreadsheet; save it as CSV (in Excel: "CSV UTF-8") and give the .csv`;
  if (/\.(?:zip|rar|7z|tar\.bz2|tar\.xz)$/i.test(file))
    return `${quoted} is an archive; unpack it and give the folder`;
  if (/\.(?:gz|bz2|xz|zst)$/i.test(file)) return `${quoted} is compressed; decompress it first`;
  if (/\.arrow$/i.test(file))
    return `${quoted} is an Arrow file; in Python: datasets.Dataset.from_file(${show(file)}).to_parquet("data.parquet")`;
  if (/\.(?:pkl|pickle|pt|npy|npz|h5|hdf5|tfrecords?|lmdb|mdb|sqlite|db)$/i.test(file))
    return `${quoted} is in a form of Python programs that is not read; write it as Parquet or JSON Lines there`;
  return undefined;
}

/** What a folder without data has, in one line. */
function contentsOf(root: string): string {
  const counts = new Map<string, number>();
  const files = foldersBelow(root, 2, 100).flatMap((folder) =>
    entriesOf(folder)
      .filter((e) => !e.isDirectory())
      .map(({ name }) => name),
  );
  for (const name of files)
    counts.set(extname(name).toLowerCase(), (counts.get(extname(name).toLowerCase()) ?? 0) + 1);
  const common = [...counts]
    .sort((a, b) => b[1] - a[1])
    .slice(0, 5)
    .map(([ending, n]) => `${n} ${show(ending).slice(1, -1) || 'others'}`);
  const advice = files.map(adviceFor).find((text) => text !== undefined);
  const pictures = files.some((name) => PICTURE_NAME.test(name)) ? '; pictures alone have no captions' : '';
  return (common.length > 0 ? common.join(', ') : 'no files') + (advice ? `; ${advice}` : pictures);
}

/** @throws DataError for a folder that `save_to_disk` of datasets wrote, with the line that converts it */
function refuseArrow(root: string): void {
  const many = existsSync(join(root, 'dataset_dict.json'));
  if (
    !many &&
    !(existsSync(join(root, 'state.json')) && entriesOf(root).some((e) => e.name.endsWith('.arrow')))
  )
    return;
  const name = show(root);
  const line = many
    ? `for split, d in datasets.load_from_disk(${name}).items(): d.to_parquet(f"parquet/{split}.parquet")`
    : `datasets.load_from_disk(${name}).to_parquet("data.parquet")`;
  throw new DataError(
    `${root}: this folder was written by save_to_disk; convert it in Python: import datasets; ${line}`,
  );
}

function metadataFile(folder: string): string | undefined {
  const found = METADATA.map((name) => join(folder, name)).filter(isFile);
  if (found.length > 1)
    throw new DataError(
      `${folder}: expected one metadata file, found ${found.map((file) => basename(file)).join(' and ')}; delete one`,
    );
  return found[0];
}

function splitFolders(root: string): DataFile[] {
  const folders = entriesOf(root).filter(
    (e) => !isFile(join(root, e.name)) && metadataFile(join(root, e.name)),
  );
  const files = folders.flatMap(({ name }): DataFile[] => {
    const split = splitIn(name);
    const file = metadataFile(join(root, name))!;
    return split === undefined || !SPLITS.includes(split) ? [] : [{ file, format: formatOf(file)!, split }];
  });
  for (const split of SPLITS) {
    const same = files
      .filter((file) => file.split === split)
      .map(({ file }) => `${basename(dirname(file))}/`);
    if (same.length > 1)
      throw new DataError(`${root}: ${same.join(' and ')} both mean the split "${split}"; keep one`);
  }
  return files.sort((a, b) => SPLITS.indexOf(a.split!) - SPLITS.indexOf(b.split!));
}

/** The data files of one format in the folder and its usual subfolders. */
function annotationFiles(root: string): DataFile[] {
  const folders = [
    root,
    ...entriesOf(root)
      .filter((e) => SUBFOLDERS.test(e.name))
      .map((e) => join(root, e.name)),
  ];
  const found = folders.filter(isFolder).flatMap((folder) => {
    const { sidecars, others } = sidecarsIn(folder);
    const texts = sidecars.size > 0 ? [] : others.filter((name) => isTable(join(folder, name)));
    const names = entriesOf(folder)
      .map(({ name }) => name)
      .filter((name) => formatOf(name) && !sidecars.has(name));
    return [...names, ...texts].map((name) => join(folder, name));
  });
  const files = withoutLogs(found.filter((file) => isFile(file) && !isSetting(file)));
  const formats = new Set(files.map(annotationFormat));
  if (formats.size > 1) {
    const names = files.map((file) => basename(file)).slice(0, 6);
    throw new DataError(
      `${root}: expected data files of one format, found ${names.join(', ')}; name the one to read`,
    );
  }
  return files.map((file) => ({ file, format: annotationFormat(file), split: splitOf(file, root) }));
}

/** Text files that contain the texts of many pictures: Kaggle's captions.txt, Flickr8k.token.txt (not its lemmas), VQA-Med. */
const isTable = (file: string) => !/lemma/i.test(basename(file)) && hasTable(file);
const annotationFormat = (file: string) => (/\.txt$/i.test(file) ? 'csv' : formatOf(file)!);

/** Whether a JSON file describes a downloaded data set instead of containing its data. */
const isSetting = (file: string) =>
  /^(?:dataset_infos?|state|manifest|config|package|tsconfig|.*_stats|license.*|(?:instances|person_keypoints|stuff|panoptic|image_info)_.*)\.json$/i.test(
    basename(file),
  );

/** img2dataset writes 00000.parquet, .json or .csv as the log of the shard 00000.tar or of the folder 00000/. */
function withoutLogs(files: string[]): string[] {
  const stem = (file: string) => file.slice(0, file.length - extname(file).length);
  const tars = new Set(files.filter((file) => formatOf(file) === 'tar').map(stem));
  return files.filter(
    (file) =>
      formatOf(file) === 'tar' ||
      !(tars.has(stem(file)) || isFolder(stem(file)) || isFile(`${stem(file)}_stats.json`)),
  );
}

/** The split in a file's name, else in that of its folder. */
function splitOf(file: string, root: string): string | undefined {
  const folder = dirname(file) === root ? '' : basename(dirname(file));
  return splitIn(basename(file)) ?? splitIn(folder);
}

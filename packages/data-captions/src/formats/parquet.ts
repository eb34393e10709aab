/**
 * Parquet as the Hugging Face hub stores image data sets: a column {bytes, path} with the image files, and columns
 * of text. Texts are read at once; images when needed, a row group at a time, with a cache of the last groups.
 */
import { dirname } from 'node:path';
import type { AsyncBuffer, FileMetaData, SchemaTree } from 'hyparquet';
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects, parquetSchema } from 'hyparquet';
import { compressors } from 'hyparquet-compressors';
import { DataError, reason } from '../errors';
import { cellOf } from '../image-name';
import { fromBase64, isBase64, isTaken, takeBase64 } from './base64';
import type { Json, ReadRows, Row } from './row';
import { isRecord } from './row';

interface Opened {
  file: AsyncBuffer;
  metadata: FileMetaData;
  compressors: typeof compressors;
}

const opened = new Map<string, Promise<Opened>>();

/** Opens a file; its footer is read only once. */
function openParquet(path: string): Promise<Opened> {
  const known = opened.get(path);
  if (known) return known;
  const made = (async () => {
    const file = await asyncBufferFromFile(path);
    return { file, metadata: await parquetMetadataAsync(file), compressors };
  })();
  made.catch(() => opened.delete(path));
  opened.set(path, made);
  return made;
}

/** Rows of a file with their texts; its images are named by their row. @throws DataError when the file is damaged */
export async function readParquet(path: string): Promise<ReadRows> {
  opened.delete(path); // the file may have changed since last time
  try {
    const source = await openParquet(path);
    const columns = parquetSchema(source.metadata).children;
    const image = columns.find(isImage);
    const names = columns.filter((column) => !isImage(column)).map(({ element }) => element.name);
    const bases = [dirname(path)];
    const rows: Row[] = [];
    for (const read of groupsOf(source, names)) {
      for (const cells of await read) {
        const i = rows.length;
        const { values, pictures } = takeBase64(plain(cells) as Json);
        const column = image?.element.name ?? (pictures.length === 1 ? holderOf(values) : undefined);
        const picture = column === undefined ? {} : { image: cellOf(path, i, column) };
        rows.push({ source: `${path}:${i + 1}`, values, bases, ...picture });
      }
    }
    return { rows, problems: [] };
  } catch (error) {
    throw new DataError(`${path}: cannot be read as Parquet (${reason(error)}); it is damaged or cut off`);
  }
}

/** The cells of the columns, a row group at a time, so that base64 pictures in them are never all in memory. */
function* groupsOf(source: Opened, columns: string[]): Generator<Promise<Record<string, unknown>[]>> {
  let rowStart = 0;
  for (const group of source.metadata.row_groups) {
    const rowEnd = rowStart + Number(group.num_rows);
    yield columns.length
      ? parquetReadObjects({ ...source, columns, rowStart, rowEnd })
      : Promise.resolve(Array.from({ length: rowEnd - rowStart }, () => ({})));
    rowStart = rowEnd;
  }
}

/** The column from which the only base64 picture was taken, if it was the whole cell. */
const holderOf = (values: Json) => Object.keys(values).find((name) => isTaken(values[name]));

/** Whether a column is a {bytes, path} group or a list of them, or bytes (not text) with a name like that of an image. */
function isImage({ element: column, children }: SchemaTree): boolean {
  if (children.some(({ element }) => element.name === 'bytes')) return true;
  if (children.length > 0)
    return children.length === 1 && children[0].children.length > 0 && isImage(children[0]);
  const text = column.converted_type === 'UTF8' || column.logical_type?.type === 'STRING';
  return column.type === 'BYTE_ARRAY' && !text && /^(?:image|img|picture|jpe?g|png|bytes)/i.test(column.name);
}

/** Converts 64-bit integers to numbers if exact, else to strings, and drops nulls. */
function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return Number.isSafeInteger(Number(value)) ? Number(value) : String(value);
  if (Array.isArray(value)) return value.map(plain);
  if (value instanceof Uint8Array || value instanceof Date) return value;
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).flatMap(([k, v]) => (v === null || v === undefined ? [] : [[k, plain(v)]])),
  );
}

const KEPT_BYTES = 256 << 20;
/** The bytes of an image, or why there are none. */
type Cell = Uint8Array | string;
/** Cached images of the row groups used last, the newest at the end. */
const groups = new Map<string, { images: Promise<Cell[]>; bytes: number }>();

/** The bytes of one image. @throws Error when the cell contains none */
export async function readParquetImage(path: string, row: number, column: string): Promise<Uint8Array> {
  const { metadata } = await openParquet(path);
  let [start, end] = [0, 0];
  for (const group of metadata.row_groups) {
    [start, end] = [end, end + Number(group.num_rows)];
    if (row < end) break;
  }
  const image = (await imagesOf(path, column, start, end))[row - start];
  if (typeof image === 'string') throw new Error(image);
  return image;
}

function imagesOf(path: string, column: string, start: number, end: number) {
  const key = `${start} ${column} ${path}`;
  const kept = groups.get(key);
  if (kept) {
    groups.delete(key);
    groups.set(key, kept);
    return kept.images;
  }
  const entry = { images: readGroup(path, column, start, end), bytes: 0 };
  groups.set(key, entry);
  entry.images.then(
    (images) => {
      entry.bytes = images.reduce((sum, image) => sum + image.length, 0);
      forgetOldest();
    },
    () => groups.delete(key),
  );
  return entry.images;
}

function forgetOldest(): void {
  let total = [...groups.values()].reduce((sum, { bytes }) => sum + bytes, 0);
  for (const [key, { bytes }] of groups) {
    if (total <= KEPT_BYTES || groups.size === 1) return;
    groups.delete(key);
    total -= bytes;
  }
}

async function readGroup(path: string, column: string, rowStart: number, rowEnd: number) {
  const source = await openParquet(path);
  const rows = await parquetReadObjects({ ...source, columns: [column], rowStart, rowEnd, utf8: false });
  return rows.map((row) => imageIn(row[column]));
}

/** Reads bytes, a {bytes} group, a list of one of these, and base64 text. */
function imageIn(cell: unknown): Cell {
  if (Array.isArray(cell))
    return cell.length === 1 ? imageIn(cell[0]) : `expected one image in the cell, found ${cell.length}`;
  const content = isRecord(cell) && 'bytes' in cell ? cell.bytes : cell;
  if (content instanceof Uint8Array && content.length > 0) return content;
  if (typeof content !== 'string' || !isBase64(content)) return 'the cell holds no image bytes';
  try {
    return fromBase64(content);
  } catch (error) {
    return reason(error);
  }
}

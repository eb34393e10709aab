/**
 * Where the bytes of an image are. An image is named by a string, see image-name.
 */
import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { DataError, reason } from './errors';
import { readParquetImage } from './formats/parquet';
import { PLACE } from './image-name';

/** The bytes of an image file, wherever they are. Throws DataError naming the image. */
export async function readImage(image: string): Promise<Uint8Array> {
  const place = PLACE.exec(image);
  try {
    if (!place) return await readRange(image);
    const [, file, offset, length, row, column] = place;
    if (row !== undefined) return await readParquetImage(file, Number(row), column);
    return await readRange(file, Number(offset), Number(length));
  } catch (error) {
    throw new DataError(`${image}: the image cannot be read (${reason(error)}); check the path`);
  }
}

/** No image that may be decoded has a larger file. */
const MOST_BYTES = 2 ** 30;

/** A part of a regular file, or all of it. Nothing is allocated that the file cannot fill. */
async function readRange(file: string, offset = 0, length?: number): Promise<Uint8Array> {
  // Non-blocking, so that a named pipe in place of a file cannot hang the program.
  const handle = await open(file, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  try {
    const info = await handle.stat();
    if (!info.isFile()) throw new Error('it is no regular file');
    const size = length ?? info.size;
    const missing = Math.min(size, offset + size - info.size);
    if (missing > 0) throw new Error(`the file ends ${missing} bytes too early`);
    if (size > MOST_BYTES) throw new Error(`it has ${size} bytes, more than ${MOST_BYTES}`);
    const bytes = Buffer.allocUnsafeSlow(size);
    for (let done = 0; done < size;) {
      const { bytesRead } = await handle.read(bytes, done, size - done, offset + done);
      if (bytesRead === 0) throw new Error('the file became shorter while it was read');
      done += bytesRead;
    }
    return bytes;
  } finally {
    await handle.close();
  }
}

/** What stays the same when an image is renamed or moved: the SHA-256 of its bytes. Throws DataError. */
export async function imageId(image: string): Promise<string> {
  return createHash('sha256')
    .update(await readImage(image))
    .digest('hex');
}

/** Size of an image file in bytes; only inside Parquet it must be read for that. Nothing when it cannot be had. */
export async function imageBytes(image: string): Promise<number | undefined> {
  const place = PLACE.exec(image);
  if (!place) return (await stat(image).catch(() => undefined))?.size;
  if (place[3] !== undefined) return Number(place[3]);
  return (await readImage(image).catch(() => undefined))?.length;
}

/**
 * For each image the number of the first one with the same content. Only files of one size are compared by their hash,
 * so that most of a data set is not read. An image that cannot be read is its own.
 */
export async function sameContent(images: readonly string[]): Promise<Int32Array> {
  const first = new Map<string, number>();
  images.forEach((image, i) => first.set(image, first.get(image) ?? i));
  const bySize = new Map<number | undefined, string[]>();
  for (const image of first.keys()) {
    const size = await imageBytes(image);
    const group = bySize.get(size);
    if (group) group.push(image);
    else bySize.set(size, [image]);
  }
  for (const [size, group] of bySize) if (group.length > 1 && size !== undefined) await merge(group, first);
  return Int32Array.from(images, (image) => first.get(image)!);
}

async function merge(group: string[], first: Map<string, number>): Promise<void> {
  const seen = new Map<string, number>();
  for (const image of group) {
    const id = await imageId(image).catch(() => undefined);
    if (id === undefined) continue;
    const before = seen.get(id);
    if (before === undefined) seen.set(id, first.get(image)!);
    else first.set(image, before);
  }
}

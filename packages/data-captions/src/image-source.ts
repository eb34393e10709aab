/** The bytes of images by their names (see image-name). */
import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { constants } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { DataError, reason } from './errors';
import { fromBase64 } from './formats/base64';
import { readParquetImage } from './formats/parquet';
import { placeOf } from './image-name';
import { openRegular } from './regular-file';

/**
 * The bytes of an image file. A disk or network that fails for a moment is tried once more.
 * @throws DataError that names the image
 */
export async function readImage(image: string): Promise<Uint8Array> {
  try {
    return await readOnce(image).catch(async (error: NodeJS.ErrnoException) => {
      if (!PASSING.includes(-(error.errno ?? 0))) throw error;
      await sleep(RETRY_MS);
      return readOnce(image);
    });
  } catch (error) {
    throw new DataError(`${image}: the image cannot be read (${reason(error)}); check the path`);
  }
}

const { EIO, ESTALE, EAGAIN, EBUSY, ETIMEDOUT, EMFILE, ENFILE, ENOMEM } = constants.errno;
/** Errors that may have passed a moment later. */
const PASSING: number[] = [EIO, ESTALE, EAGAIN, EBUSY, ETIMEDOUT, EMFILE, ENFILE, ENOMEM];
const RETRY_MS = 200;

async function readOnce(image: string): Promise<Uint8Array> {
  const place = placeOf(image);
  if (!place) return readRange(image);
  const [, file, offset, length, row, column, text, letters] = place;
  if (text !== undefined)
    return fromBase64(Buffer.from(await readRange(file, Number(text), Number(letters))).toString('latin1'));
  if (row !== undefined) return readParquetImage(file, Number(row), column);
  return readRange(file, Number(offset), Number(length));
}

/** Larger files are refused; no image within the pixel limit needs one. */
const MOST_BYTES = 2 ** 30;

/** Part of a regular file, or all of it. The size is checked before memory is allocated. */
async function readRange(file: string, offset = 0, length?: number): Promise<Uint8Array> {
  const { handle, size: whole } = await openRegular(file);
  try {
    const size = length ?? whole;
    const missing = Math.min(size, offset + size - whole);
    if (missing > 0) throw new Error(`the file ends ${missing} bytes too early`);
    if (size > MOST_BYTES) throw new Error(`it has ${size} bytes, more than ${MOST_BYTES}`);
    const bytes = Buffer.allocUnsafeSlow(size);
    let done = 0;
    while (done < size) {
      const { bytesRead } = await handle.read(bytes, done, size - done, offset + done);
      if (bytesRead === 0) throw new Error('the file became shorter while it was read');
      done += bytesRead;
    }
    return bytes;
  } finally {
    await handle.close();
  }
}

/** An id that survives renaming and moving: the SHA-256 of the image's bytes. @throws DataError */
export async function imageId(image: string): Promise<string> {
  return createHash('sha256')
    .update(await readImage(image))
    .digest('hex');
}

/** Size of an image file in bytes, without reading it (except in Parquet); undefined when it cannot be read. */
export async function imageBytes(image: string): Promise<number | undefined> {
  const place = placeOf(image);
  if (!place) return (await stat(image).catch(() => undefined))?.size;
  if (place[3] !== undefined) return Number(place[3]);
  return (await readImage(image).catch(() => undefined))?.length;
}

/**
 * For each image the index of the first one with the same content. Only files of equal size are hashed, so most of a
 * data set is not read. An image that cannot be read equals no other.
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

/** The picture of a request, as it is sent to the worker. */
import { stat } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { CaptionerError } from './errors';
import type { ImageSource } from './types';

/**
 * A path, or a copy of the bytes, which is moved to the worker; the caller keeps its own.
 * @throws CaptionerError (ImageError) for something else, or too many bytes
 */
export async function sendableImage(
  image: ImageSource,
  max_bytes: number,
): Promise<string | Uint8Array<ArrayBuffer>> {
  const place = image instanceof URL ? pathOf(image) : image;
  if (typeof place === 'string') {
    const { size } = await stat(place).catch((): never => refuse(`${place}: there is no such image file`));
    checkSize(size, max_bytes);
    return place;
  }
  if (place instanceof Blob) {
    checkSize(place.size, max_bytes);
    return copyInTurn(
      place.size,
      async (from, to) => new Uint8Array(await place.slice(from, to).arrayBuffer()),
    );
  }
  if (!(place instanceof ArrayBuffer) && !ArrayBuffer.isView(place))
    return refuse(
      `expected the bytes of an image file, a path, a file: URL or a Blob, found ${typeof place}`,
    );
  checkSize(place.byteLength, max_bytes);
  const bytes =
    place instanceof ArrayBuffer
      ? new Uint8Array(place)
      : new Uint8Array(place.buffer, place.byteOffset, place.byteLength);
  return bytes.byteLength <= AT_ONCE
    ? new Uint8Array(bytes)
    : copyInTurn(bytes.length, (from, to) => bytes.subarray(from, to));
}

/** Bytes that are copied in one turn of the event loop. */
const AT_ONCE = 2 ** 18;

let lastCopy: Promise<unknown> = Promise.resolve();

/** One picture after the other, a part in each turn: twenty uploads that come together take 60 ms, in which a server answers others. */
function copyInTurn(
  size: number,
  part: (from: number, to: number) => Uint8Array | Promise<Uint8Array>,
): Promise<Uint8Array<ArrayBuffer>> {
  const copy = lastCopy.then(async () => {
    const made = new Uint8Array(size);
    for (let from = 0; from < size; from += 8 * AT_ONCE) {
      made.set(await part(from, from + 8 * AT_ONCE), from);
      await new Promise((resolve) => void setImmediate(resolve));
    }
    return made;
  });
  lastCopy = copy.catch(() => undefined);
  return copy;
}

function pathOf(url: URL): string {
  if (url.protocol === 'file:') return fileURLToPath(url);
  return refuse(
    `${url.protocol}//${url.host}: expected a file: URL; fetch the picture yourself and give its bytes`,
  );
}

function checkSize(size: number, max_bytes: number): void {
  if (size > max_bytes) refuse(`the image file has ${size} bytes, more than ${max_bytes} (max_bytes)`);
}

function refuse(message: string): never {
  throw new CaptionerError('ImageError', message);
}

/** The picture of a request, as it is sent to the worker. */
import { stat } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { CaptionerError } from './errors';
import type { ImageSource } from './types';

/**
 * A path, or a copy of the bytes, so that the caller may change them and they can be moved to the worker.
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
    return new Uint8Array(await place.arrayBuffer());
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
  return new Uint8Array(bytes);
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

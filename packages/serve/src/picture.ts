/** The bytes of a picture that a request names. What they are is decided by their content when they are decoded. */
import { HttpError } from './errors';
import { fetchPicture } from './remote';
import type { RemoteOptions } from './remote';

const DATA_URL = /^data:[^,;]*(?:;[^,;]*)*;base64,/i;

/** A data URL, or an address on a host that is allowed. @throws HttpError */
export async function pictureOf(
  url: unknown,
  remote: RemoteOptions,
  signal: AbortSignal,
): Promise<Uint8Array> {
  if (typeof url !== 'string') throw new HttpError(400, 'image_url: expected a text', 'invalid_image_url');
  const [head] = DATA_URL.exec(url.slice(0, 200)) ?? [];
  if (head !== undefined) return fromBase64(url.slice(head.length));
  if (/^https?:/i.test(url)) return fetchPicture(url, remote, signal);
  throw new HttpError(
    400,
    'image_url: expected data:image/…;base64,… with the picture, or an address on a host that this server may fetch from',
    'invalid_image_url',
  );
}

/** @throws HttpError */
export function fromBase64(text: string): Uint8Array {
  const bytes = Buffer.from(text, 'base64');
  if (bytes.length > 0 && isWhole(bytes, text)) return bytes;
  const joined = text.replace(/[\r\n]/g, '');
  if (bytes.length > 0 && joined.length < text.length && isWhole(bytes, joined)) return bytes;
  throw new HttpError(400, 'the picture: expected base64, found something else', 'invalid_base64');
}

/** Whether every character was used: the decoder skips those that are none of base64. A test of each would block the server's thread. */
function isWhole(bytes: Buffer, text: string): boolean {
  const end = text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0;
  const digits = text.length - end;
  return digits % 4 !== 1 && bytes.length === Math.floor((digits * 3) / 4);
}

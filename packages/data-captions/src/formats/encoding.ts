/** Finds the encoding of text files: what spreadsheets, PowerShell and editors write. No text is ever decoded with U+FFFD. */
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { DataError, reason } from '../errors';
import { readRegular } from '../regular-file';

/** Labels of TextDecoder. */
export type Encoding = 'utf-8' | 'utf-16le' | 'utf-16be' | 'windows-1252' | 'macintosh';

/** Larger texts do not fit into one JavaScript string. */
const MOST_BYTES = 500_000_000;
const HEAD = 4096;

/** The encoding of text bytes; `undefined` if it is none of those that can be told apart. */
export function encodingOf(bytes: Uint8Array): Encoding | undefined {
  const wide = utf16(bytes);
  if (wide) return wide;
  if (decodes(bytes)) return 'utf-8';
  // Excel for Mac writes Mac Roman. The wrong one of the two has symbols or capitals inside words.
  const mac = bytes.includes(13) && !bytes.includes(10);
  const labels: Encoding[] = mac ? ['macintosh', 'windows-1252'] : ['windows-1252', 'macintosh'];
  return labels.find((label) => !IMPLAUSIBLE.test(textOf(bytes, label)));
}

/** UTF-16 by its byte order mark, or by zero bytes in every other place. */
export function utf16(bytes: Uint8Array): 'utf-16le' | 'utf-16be' | undefined {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return 'utf-16le';
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return 'utf-16be';
  const head = bytes.subarray(0, HEAD & ~1);
  const zeros = [0, 0];
  head.forEach((byte, i) => (zeros[i & 1] += byte === 0 ? 1 : 0));
  const most = head.length / 2;
  if (most < 4) return undefined;
  if (zeros[1] > 0.8 * most && zeros[0] < 0.1 * most) return 'utf-16le';
  if (zeros[0] > 0.8 * most && zeros[1] < 0.1 * most) return 'utf-16be';
  return undefined;
}

function decodes(bytes: Uint8Array): boolean {
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    return true;
  } catch {
    return false;
  }
}

/**
 * What Western text does not contain: bytes without a character, symbols or capitals inside words, long runs of accents
 * (Cyrillic, Greek and Chinese code pages), and letters that are mostly Turkish, Polish, Hungarian or Romanian ones misread.
 */
const IMPLAUSIBLE = new RegExp(
  [
    '[\\u0080-\\u009f]',
    '\\p{L}[¡-©«¬®-³µ¶¸¹»-¿×÷‚„†‡ˆ‰‹˜›™€∏π∑√∂∫∞≠≤≥≈◊ı˚˝˛˙˘¯˜]\\p{L}',
    '\\p{Ll}(?![A-Z])\\p{Lu}(?:\\p{Ll}|\\b|$)',
    '[^\\0-\\x7f–—…•·°]{4}',
    '[ýþðÝÞÐ¤]',
    '€\\p{L}',
    'õ(?!e)',
    'ã(?![oes]|\\P{L}|$)',
  ].join('|'),
  'u',
);

/** The characters of Windows-1252 at 0x80 to 0x9f; Node's decoder of that name leaves them control characters. */
const WINDOWS = '€\x81‚ƒ„…†‡ˆ‰Š‹Œ\x8dŽ\x8f\x90‘’“”•–—˜™š›œ\x9džŸ';

function textOf(bytes: Uint8Array, encoding: Encoding): string {
  if (encoding !== 'windows-1252')
    return new TextDecoder(encoding, { fatal: encoding === 'utf-8' }).decode(bytes);
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
  return text.replace(/[\x80-\x9f]/g, (one) => WINDOWS[one.charCodeAt(0) - 0x80]);
}

/** A whole text file. @throws DataError when it cannot be read, is too large, or its encoding is not known */
export async function readText(file: string, advice = ''): Promise<string> {
  const bytes = await readBytes(file, advice);
  return decode(bytes, encodingOf(bytes), file);
}

/** JSON is UTF-8 by its standard; PowerShell writes it as UTF-16. @throws DataError as readText */
export async function readJsonText(file: string, advice: string): Promise<string> {
  const bytes = await readBytes(file, advice);
  return decode(bytes, utf16(bytes) ?? (decodes(bytes) ? 'utf-8' : undefined), file);
}

async function readBytes(file: string, advice: string): Promise<Uint8Array> {
  try {
    return await readRegular(file, MOST_BYTES, advice);
  } catch (error) {
    throw new DataError(`${file}: cannot be read (${reason(error)})`);
  }
}

/** Without a byte order mark. @throws DataError that names the first line of an unknown encoding */
export function decode(bytes: Uint8Array, encoding: Encoding | undefined, file: string): string {
  if (encoding) return textOf(bytes, encoding);
  throw unknownEncoding(`${file}:${badLine(bytes)}`);
}

export const unknownEncoding = (place: string) =>
  new DataError(
    `${place}: expected text in UTF-8, UTF-16 or Windows-1252, found bytes of another encoding; save the file as UTF-8 ` +
      `(in Excel: "CSV UTF-8")`,
  );

/** The first line that is not UTF-8. */
function badLine(bytes: Uint8Array): number {
  for (let begin = 0, line = 1; ; line++) {
    const newline = bytes.indexOf(10, begin);
    if (newline < 0 || !decodes(bytes.subarray(begin, newline))) return line;
    begin = newline + 1;
  }
}

/** Whether a file of any size is UTF-8. @throws Error when it cannot be read */
export async function isUtf8(file: string): Promise<boolean> {
  if (utf16(await headOf(file, HEAD))) return false;
  const decoder = new TextDecoder('utf-8', { fatal: true });
  try {
    for await (const part of createReadStream(file) as AsyncIterable<Uint8Array>)
      decoder.decode(part, { stream: true });
    decoder.decode();
    return true;
  } catch (error) {
    if (error instanceof TypeError) return false;
    throw error;
  }
}

/** The first bytes of a file. */
export async function headOf(file: string, size: number): Promise<Uint8Array> {
  const handle = await open(file);
  try {
    const { bytesRead, buffer } = await handle.read(Buffer.alloc(size), 0, size, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}

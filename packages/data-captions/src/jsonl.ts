import { createReadStream } from 'node:fs';
import { dirname } from 'node:path';
import type { Problem } from './errors';
import { DataError, reason, show } from './errors';
import { takeBase64 } from './formats/base64';
import { headOf, readJsonText, utf16 } from './formats/encoding';
import type { Json, ReadRows } from './formats/row';
import { isRecord } from './formats/row';
import { base64At } from './image-name';

/** A longer line is no row. */
const MOST_LINE = 256 << 20;

/**
 * Parses JSON Lines: UTF-8 (a byte order mark is allowed), one object per line, blank lines skipped.
 * Never throws: lines that are not UTF-8, not JSON or not an object are returned as problems.
 */
export function parseJsonl(bytes: Uint8Array, file: string): ReadRows {
  const read: ReadRows = { rows: [], problems: [] };
  addLines(read, Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length), file, { offset: 0, line: 1 });
  return read;
}

/** Adds the rows of whole lines. `at` is the place of the first one; undefined offset: pictures inside cannot be found again. */
function addLines(
  read: ReadRows,
  bytes: Buffer,
  file: string,
  at: { offset?: number; line: number },
): number {
  const bases = [dirname(file)];
  const decoder = new TextDecoder('utf-8', { fatal: true });
  let { line } = at;
  for (let begin = 0; begin < bytes.length; line++) {
    const newline = bytes.indexOf(10, begin);
    const end = newline < 0 ? bytes.length : newline;
    const source = `${file}:${line}`;
    const row = parseLine(bytes.subarray(begin, end), decoder);
    if ('expected' in row) read.problems.push({ source, ...row });
    else if ('values' in row) {
      const { values, pictures } = takeBase64(row.values);
      const place = pictures.length === 1 ? placeOf(bytes.subarray(begin, end), pictures[0]) : undefined;
      if (pictures.length > 0 && (place === undefined || at.offset === undefined))
        read.problems.push({
          source,
          expected: 'one picture in a row of UTF-8 text',
          found: `${pictures.length} base64 pictures`,
        });
      else if (place) {
        const image = base64At(file, at.offset! + begin + place.offset, place.length);
        read.rows.push({ source, values, bases, image });
      } else read.rows.push({ source, values, bases });
    }
    begin = end + 1;
  }
  return line;
}

/** Where base64 text is in JSON; PHP writes its slashes as `\/`. */
export function placeOf(
  bytes: Buffer,
  text: string,
  from = 0,
): { offset: number; length: number } | undefined {
  for (const written of [text, text.replaceAll('/', '\\/')]) {
    const offset = bytes.indexOf(written, from, 'latin1');
    if (offset >= 0) return { offset, length: written.length };
  }
  return undefined;
}

type Line = { values: Json } | Omit<Problem, 'source'> | { blank: true };

function parseLine(bytes: Uint8Array, decoder: InstanceType<typeof TextDecoder>): Line {
  let text: string;
  try {
    text = decoder.decode(bytes).trim();
  } catch {
    return { expected: 'UTF-8 text', found: 'bytes that are not UTF-8; save the file as UTF-8' };
  }
  if (text === '') return { blank: true };
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return { expected: 'one JSON object', found: `${show(text)} (${show(reason(error))})` };
  }
  return isRecord(value) ? { values: value } : { expected: 'one JSON object', found: show(value) };
}

/** Reads and parses a JSON Lines file of any size. @throws DataError when it cannot be read */
export async function readJsonl(file: string): Promise<ReadRows> {
  const read: ReadRows = { rows: [], problems: [] };
  try {
    if (utf16(await headOf(file, 4096))) {
      addLines(read, Buffer.from(await readJsonText(file, '')), file, { line: 1 });
      return read;
    }
    let rest: Buffer[] = [];
    let [offset, line, size] = [0, 1, 0];
    for await (const part of createReadStream(file, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>) {
      const newline = part.lastIndexOf(10);
      rest.push(newline < 0 ? part : part.subarray(0, newline + 1));
      size += part.length;
      if (size > MOST_LINE + part.length) throw new Error(`line ${line} has more than ${MOST_LINE} bytes`);
      if (newline < 0) continue;
      const whole = Buffer.concat(rest);
      line = addLines(read, whole, file, { offset, line });
      offset += whole.length;
      rest = [part.subarray(newline + 1)];
      size = rest[0].length;
    }
    addLines(read, Buffer.concat(rest), file, { offset, line });
  } catch (error) {
    if (error instanceof DataError) throw error;
    throw new DataError(`${file}: cannot be read (${reason(error)})`);
  }
  return read;
}

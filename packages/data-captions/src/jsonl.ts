import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Problem } from './errors';
import { DataError, reason, show } from './errors';
import type { Json, ReadRows, Row } from './formats/row';
import { isRecord } from './formats/row';

/**
 * Parses JSON Lines: UTF-8 (a byte order mark is allowed), one object per line, blank lines skipped.
 * Never throws: lines that are not UTF-8, not JSON or not an object are returned as problems.
 */
export function parseJsonl(bytes: Uint8Array, file: string): ReadRows {
  const rows: Row[] = [];
  const problems: Problem[] = [];
  const bases = [dirname(file)];
  const decoder = new TextDecoder('utf-8', { fatal: true });
  for (let begin = 0, line = 1; begin < bytes.length; line++) {
    const newline = bytes.indexOf(10, begin);
    const end = newline < 0 ? bytes.length : newline;
    const source = `${file}:${line}`;
    const row = parseLine(bytes.subarray(begin, end), decoder);
    if ('values' in row) rows.push({ source, values: row.values, bases });
    else if ('expected' in row) problems.push({ source, ...row });
    begin = end + 1;
  }
  return { rows, problems };
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
    return { expected: 'one JSON object', found: `${show(text)} (${reason(error)})` };
  }
  return isRecord(value) ? { values: value } : { expected: 'one JSON object', found: show(value) };
}

/** Reads and parses a JSON Lines file. @throws DataError when it cannot be read */
export async function readJsonl(file: string): Promise<ReadRows> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(file);
  } catch (error) {
    throw new DataError(`${file}: cannot be read (${reason(error)})`);
  }
  return parseJsonl(bytes, file);
}

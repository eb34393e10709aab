/**
 * WebDataset shards: members whose names are equal up to the first dot are one sample (0001.jpg, 0001.txt, 0001.json).
 * Images are not loaded: a row contains their offset in the file. Reference: webdataset.
 */
import { createReadStream } from 'node:fs';
import { dirname } from 'node:path';
import type { Header } from 'tar-stream';
import { extract } from 'tar-stream';
import type { Problem } from '../errors';
import { DataError, reason, show } from '../errors';
import { bytesAt } from '../image-name';
import type { Json, ReadRows, Row } from './row';
import { isRecord } from './row';

const IMAGES = new Set(['jpg', 'jpeg', 'png', 'webp', 'gif', 'tif', 'tiff', 'avif', 'bmp', 'img', 'image']);
/** Larger text members are not captions. */
const MOST_TEXT = 1 << 20;

/**
 * Samples of one shard in file order: .txt is the text, the keys of .json are columns, other texts are columns named
 * after their extension (.caption, .question, .answer…).
 * @throws DataError when the file is damaged or compressed
 */
export async function readTar(file: string): Promise<ReadRows> {
  if (/\.t?gz$/i.test(file))
    throw new DataError(
      `${file}: expected an uncompressed .tar, in which images can be read by their offset; unpack it with gunzip`,
    );
  const samples = new Map<string, Row>();
  const problems: Problem[] = [];
  const reader = extract();
  const input = createReadStream(file);
  input.on('error', (error) => reader.destroy(error));
  input.pipe(reader);
  try {
    for await (const entry of reader) {
      const header = entry.header as Header & { byteOffset: number };
      if (header.type === 'file' && isMember(header.name)) {
        const small = (header.size ?? 0) <= MOST_TEXT;
        const text =
          !isImage(header.name) && small ? await textOf(entry as AsyncIterable<Uint8Array>) : undefined;
        addMember(samples, problems, file, header, text);
      }
      entry.resume();
    }
  } catch (error) {
    throw new DataError(`${file}: cannot be read as a tar file (${reason(error)}); it is damaged or cut off`);
  }
  for (const { source, image } of samples.values())
    if (image === undefined) problems.push({ source, expected: 'a member with an image', found: 'none' });
  return { rows: [...samples.values()].filter((row) => row.image !== undefined), problems };
}

/** False for the folders and hidden files that tar programs add. */
const isMember = (name: string) => /(?:^|\/)[^/.][^/]*\.[^/]+$/.test(name);
const split = (name: string) => /^((?:.*\/)?[^/.]+)\.([^/]+)$/.exec(name)!;
const isImage = (name: string) => IMAGES.has(split(name)[2].toLowerCase());

async function textOf(entry: AsyncIterable<Uint8Array>): Promise<string | undefined> {
  const parts: Uint8Array[] = [];
  for await (const part of entry) parts.push(part);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(parts));
  } catch {
    return undefined; // some other binary member
  }
}

function addMember(
  samples: Map<string, Row>,
  problems: Problem[],
  file: string,
  header: { name: string; size?: number; byteOffset: number },
  text: string | undefined,
): void {
  const [, key, ending] = split(header.name);
  const source = `${file}:${key}`;
  const row = samples.get(key) ?? { source, values: {}, bases: [dirname(file)] };
  samples.set(key, row);
  if (isImage(header.name)) row.image ??= bytesAt(file, header.byteOffset, header.size ?? 0);
  else if (ending.toLowerCase() === 'json') {
    const values = parseObject(text ?? '');
    if (values) row.values = { ...values, ...row.values };
    else problems.push({ source, expected: `one JSON object in ${header.name}`, found: show(text) });
  } else if (text !== undefined) row.values[ending === 'txt' ? 'text' : ending] = text;
}

function parseObject(text: string): Json | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isRecord(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Opening files of which nothing is known: a pipe, device or folder is refused, and no more is read than fits. */
import { constants } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { open } from 'node:fs/promises';
import { formatOf, HEAD_BYTES } from './formats';

/** Larger JSON files are refused; the largest real one, a tokenizer with its vocabulary, has some 30 MB. */
export const MOST_JSON = 200_000_000;

/**
 * Opens a file for reading, without waiting for the other end of a named pipe.
 * @throws the system's error, or Error if it is not a regular file
 */
export async function openRegular(file: string): Promise<{ handle: FileHandle; size: number }> {
  const handle = await open(file, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  try {
    const info = await handle.stat();
    if (!info.isFile())
      throw new Error(
        `expected a regular file, found ${info.isDirectory() ? 'a folder' : 'a pipe, socket or device'}`,
      );
    return { handle, size: info.size };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** The whole of a regular file. @throws as openRegular, and Error for more than `most` bytes */
export async function readRegular(file: string, most = MOST_JSON): Promise<Buffer> {
  const { handle, size } = await openRegular(file);
  try {
    if (size > most) throw new Error(`expected at most ${most} bytes, found ${size}`);
    return await handle.readFile();
  } finally {
    await handle.close();
  }
}

/** The value of a JSON file. @throws as readRegular, and Error for other text, which is named if it is recognised */
export async function readJsonFile(file: string, most = MOST_JSON): Promise<unknown> {
  const bytes = await readRegular(file, most);
  try {
    return JSON.parse(bytes.toString('utf8').replace(/^\uFEFF/, ''));
  } catch (error) {
    const head = bytes.subarray(0, HEAD_BYTES);
    const found = /^\s*[{[]/.test(head.toString('latin1')) ? undefined : formatOf(head);
    throw new Error(found ? `expected JSON, found ${found}` : `expected JSON: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

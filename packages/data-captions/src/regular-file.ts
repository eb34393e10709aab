/** Opening files of which nothing is known: a named pipe or device is refused at once instead of waiting for it. */
import { constants } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { open } from 'node:fs/promises';

/** @throws the system's error, or Error if it is not a regular file */
export async function openRegular(file: string): Promise<{ handle: FileHandle; size: number }> {
  const handle = await open(file, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  try {
    const info = await handle.stat();
    if (!info.isFile()) throw new Error('it is not a regular file');
    return { handle, size: info.size };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** The whole of a file. @throws as openRegular, and Error for more than `most` bytes */
export async function readRegular(file: string, most: number, advice = ''): Promise<Buffer> {
  const { handle, size } = await openRegular(file);
  try {
    if (size > most) throw new Error(`it has ${size} bytes, more than ${most}${advice}`);
    return await handle.readFile();
  } finally {
    await handle.close();
  }
}

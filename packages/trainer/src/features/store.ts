/**
 * Features on disk, one file per image content, and for hidden states also one per text of an image (`<sha256>-text.f32`):
 *   DIR/query_embeds-<key>/key.json          what the features were made of; its time is that of the last use
 *   DIR/query_embeds-<key>/ab/<sha256>.f32   magic, rows, columns, CRC-32, the values (float32, little-endian)
 *   DIR/query_embeds-<key>/tmp/              files being written
 *   DIR/query_embeds-<key>/users/            a lock of each run that uses the folder
 * Any of it may be deleted at any time, and several runs may share it: a file is renamed when it is complete, two runs
 * write the same bytes, and what is missing or damaged is computed again. Files are not flushed one by one, because the
 * checksum detects an incomplete one. It covers the key, the image and the shape too, so a file under another name is damaged.
 */
import { readdir, rename, rm, stat, statfs, writeFile } from 'node:fs/promises';
import { homedir, hostname } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { makeFolders, readRegular } from '@blip2/weights/node';
import type { FeatureKey } from './key';

export interface FeatureStore {
  /** the folder of this key */
  dir: string;
  /** Is there a file of the right length? Its values are checked when they are read. */
  has(image: string): Promise<boolean>;
  /** The values of one image, or undefined if they are missing or damaged. `rows`: of an entry that is not of the store's shape. */
  read(image: string, rows?: number): Promise<Float32Array | undefined>;
  /** @throws the file system's error, such as ENOSPC */
  write(image: string, values: Float32Array, rows?: number): Promise<void>;
}

const MAGIC = 'BLIP2FT2';
const HEADER_BYTES = 24;

/** Bytes of the file of one image. */
export const fileBytes = ([rows, cols]: readonly [number, number]) => HEADER_BYTES + rows * cols * 4;

/** A file in tmp/ that is older was left by a process that was killed. */
const STALE_MS = 3_600_000;

/** The default folder of features: in XDG_CACHE_HOME, or ~/.cache. */
export function defaultCacheDir(env = process.env): string {
  return join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'blip2', 'features');
}

/** Free bytes for this user where `dir` is, or will be. */
export async function freeBytes(dir: string): Promise<number> {
  for (let at = dir; ; at = join(at, '..')) {
    const found = await statfs(at).catch(() => undefined);
    if (found) return found.bavail * found.bsize;
    if (at === join(at, '..')) return Infinity;
  }
}

/**
 * Opens the store of one key for features of shape [rows, cols].
 * @param model its folder, for people who list the cache
 * @throws the file system's error when the folder cannot be made or written
 */
export async function openStore(
  root: string,
  key: FeatureKey,
  shape: [rows: number, cols: number],
  model?: string,
): Promise<FeatureStore> {
  const dir = join(root, `${key.stage}-${key.id}`);
  const temporary = join(dir, 'tmp');
  await makeFolders(temporary);
  await removeStale(temporary);
  const about = JSON.stringify({ ...key, shape, dtype: 'float32', model }, null, 2) + '\n';
  await place(temporary, join(dir, 'key.json'), about);
  const [usual, cols] = shape;
  const entryOf = (image: string, rows: number) => `${key.id} ${image} ${[rows, cols]}`;
  const fileOf = (image: string) => join(dir, image.slice(0, 2), `${image}.f32`);
  return {
    dir,
    has: async (image) => (await stat(fileOf(image)).catch(() => undefined))?.size === fileBytes(shape),
    read: async (image, rows = usual) => {
      const bytes = await readRegular(fileOf(image), fileBytes([rows, cols])).catch(() => undefined);
      return bytes && decode(bytes, [rows, cols], entryOf(image, rows));
    },
    write: async (image, values, rows = usual) => {
      await makeFolders(join(dir, image.slice(0, 2)));
      await place(temporary, fileOf(image), encode(values, [rows, cols], entryOf(image, rows)));
    },
  };
}

/** Writes a file under a temporary name and renames it when it is complete. */
async function place(temporary: string, file: string, bytes: string | Uint8Array): Promise<void> {
  const draft = join(temporary, `${hostname()}-${process.pid}-${Date.now()}-${drafts++}`);
  await makeFolders(temporary); // the cache may have been deleted meanwhile
  try {
    await writeFile(draft, bytes);
    await rename(draft, file);
  } catch (error) {
    await rm(draft, { force: true }).catch(() => undefined); // frees the space if the disk is full
    throw error;
  }
}

let drafts = 0;

async function removeStale(temporary: string): Promise<void> {
  for (const name of await readdir(temporary)) {
    const file = join(temporary, name);
    const info = await stat(file).catch(() => undefined);
    if (info && Date.now() - info.mtimeMs > STALE_MS) await rm(file, { force: true });
  }
}

const checksum = (payload: Uint8Array, about: string) => crc32(payload, crc32(about));

function encode(values: Float32Array, [rows, cols]: [number, number], about: string): Uint8Array {
  if (values.length !== rows * cols)
    throw new Error(`feature store: expected ${rows} × ${cols} values, found ${values.length}`);
  const payload = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const out = Buffer.alloc(HEADER_BYTES + payload.length);
  out.write(MAGIC, 0, 'latin1');
  out.writeUInt32LE(rows, 8);
  out.writeUInt32LE(cols, 12);
  out.writeUInt32LE(checksum(payload, about), 16);
  out.set(payload, HEADER_BYTES);
  return out;
}

function decode(bytes: Buffer, [rows, cols]: [number, number], about: string): Float32Array | undefined {
  if (bytes.length !== fileBytes([rows, cols])) return undefined;
  if (bytes.toString('latin1', 0, 8) !== MAGIC) return undefined;
  if (bytes.readUInt32LE(8) !== rows || bytes.readUInt32LE(12) !== cols) return undefined;
  const payload = bytes.subarray(HEADER_BYTES);
  if (checksum(payload, about) !== bytes.readUInt32LE(16)) return undefined;
  return new Float32Array(payload.buffer.slice(payload.byteOffset, payload.byteOffset + payload.byteLength));
}

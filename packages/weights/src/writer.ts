/** Atomic writing of tensors: complete files or none. */
import type { FileHandle } from 'node:fs/promises';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { TensorToWrite } from './encode';
import { byteCount, checked, DEFAULT_METADATA, safetensorsPieces } from './encode';
import { MODEL_FOLDER } from './folder';
import { makeFolders, withStaged } from './staging';

/**
 * Writes one safetensors file, atomically.
 * @throws WeightsError for duplicate names, or data whose type or length contradicts dtype and shape; then nothing is written
 */
export async function writeSafetensors(
  file: string,
  tensors: Iterable<TensorToWrite>,
  metadata: Record<string, string> = DEFAULT_METADATA,
): Promise<void> {
  const list = checked(tensors, file);
  await withStaged(async (stage) => {
    await stage(file, (handle) => writeTensors(handle, list, metadata, file));
  });
}

/**
 * Writes a Hugging Face folder: `model-0000x-of-0000y.safetensors` with `model.safetensors.index.json`, or a single
 * `model.safetensors` if all fits into one shard. Shards are filled in the given order. Weight files of an earlier save are
 * removed after the new ones are complete.
 * @param align each file's tensors begin at a multiple of so many bytes
 * @throws WeightsError as `writeSafetensors`
 */
export async function writeSharded(
  folder: string,
  tensors: Iterable<TensorToWrite>,
  {
    maxShardBytes = 5e9,
    metadata = DEFAULT_METADATA,
    align,
  }: { maxShardBytes?: number; metadata?: Record<string, string>; align?: number } = {},
): Promise<void> {
  const list = checked(tensors, folder);
  const shards: TensorToWrite[][] = [[]];
  let filled = 0;
  for (const tensor of list) {
    const bytes = byteCount(tensor);
    if (filled > 0 && filled + bytes > maxShardBytes) {
      shards.push([]);
      filled = 0;
    }
    shards.at(-1)!.push(tensor);
    filled += bytes;
  }
  const total = String(shards.length).padStart(5, '0');
  const nameOf = (i: number) =>
    shards.length === 1
      ? 'model.safetensors'
      : `model-${String(i + 1).padStart(5, '0')}-of-${total}.safetensors`;
  const written = new Set(shards.map((_, i) => nameOf(i)));
  await makeFolders(folder);
  await withStaged(async (stage) => {
    for (const [i, shard] of shards.entries()) {
      await stage(join(folder, nameOf(i)), (handle) =>
        writeTensors(handle, shard, metadata, join(folder, nameOf(i)), align),
      );
    }
    if (shards.length > 1) {
      const weight_map = Object.fromEntries(
        shards.flatMap((shard, i) => shard.map(({ name }) => [name, nameOf(i)] as const)).sort(byName),
      );
      const index = { metadata: { total_size: list.reduce((sum, t) => sum + byteCount(t), 0) }, weight_map };
      const name = 'model.safetensors.index.json';
      written.add(name);
      await stage(join(folder, name), (handle) => handle.writeFile(`${JSON.stringify(index, null, 2)}\n`));
    }
  });
  for (const name of await readdir(folder)) {
    if (MODEL_FOLDER.parts.test(name) && !written.has(name)) await rm(join(folder, name));
  }
}

function byName([a]: readonly [string, string], [b]: readonly [string, string]): number {
  return a < b ? -1 : 1;
}

async function writeTensors(
  handle: FileHandle,
  tensors: readonly TensorToWrite[],
  metadata: Record<string, string>,
  file: string,
  align?: number,
): Promise<void> {
  for await (const piece of safetensorsPieces(tensors, metadata, file, align)) await writeAll(handle, piece);
}

/** Writes at the current position, in pieces below the system's cap on one write. */
async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.byteLength;) {
    const { bytesWritten } = await handle.write(bytes, done, Math.min(bytes.byteLength - done, 1 << 30));
    done += bytesWritten;
  }
}

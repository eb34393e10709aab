/** Atomic writing: everything goes to a temporary file beside the target, is flushed, then renamed. */
import type { FileHandle } from 'node:fs/promises';
import { mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { TensorToWrite } from './encode';
import { byteCount, checked, DEFAULT_METADATA, safetensorsPieces } from './encode';
import { WeightsError, reason } from './errors';

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
 * @throws WeightsError as `writeSafetensors`
 */
export async function writeSharded(
  folder: string,
  tensors: Iterable<TensorToWrite>,
  {
    maxShardBytes = 5e9,
    metadata = DEFAULT_METADATA,
  }: { maxShardBytes?: number; metadata?: Record<string, string> } = {},
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
  await mkdir(folder, { recursive: true });
  await withStaged(async (stage) => {
    for (const [i, shard] of shards.entries()) {
      await stage(join(folder, nameOf(i)), (handle) =>
        writeTensors(handle, shard, metadata, join(folder, nameOf(i))),
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
    const ours = /^model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?$/.test(name);
    if (ours && !written.has(name)) await rm(join(folder, name));
  }
}

/** Writes a text or byte file atomically: after a crash the file has the old or the new content, never a part. */
export async function writeFileAtomic(file: string, content: string | Uint8Array): Promise<void> {
  await withStaged(async (stage) => {
    await stage(file, (handle) => handle.writeFile(content));
  });
}

function byName([a]: readonly [string, string], [b]: readonly [string, string]): number {
  return a < b ? -1 : 1;
}

async function writeTensors(
  handle: FileHandle,
  tensors: readonly TensorToWrite[],
  metadata: Record<string, string>,
  file: string,
): Promise<void> {
  for await (const piece of safetensorsPieces(tensors, metadata, file)) await writeAll(handle, piece);
}

/** Writes at the current position, in pieces below the system's cap on one write. */
async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.byteLength;) {
    const { bytesWritten } = await handle.write(bytes, done, Math.min(bytes.byteLength - done, 1 << 30));
    done += bytesWritten;
  }
}

let staged = 0;

/** Files written by `stage` are renamed together after `work` has succeeded, and removed if it fails. */
async function withStaged(
  work: (
    stage: (file: string, write: (handle: FileHandle) => Promise<void>) => Promise<void>,
  ) => Promise<void>,
): Promise<void> {
  const pending: { temporary: string; file: string }[] = [];
  try {
    await work(async (file, write) => {
      const temporary = join(dirname(file), `.${basename(file)}.${process.pid}-${staged++}.tmp`);
      const handle = await open(temporary, 'wx').catch((error: unknown) => {
        throw new WeightsError(`${file}: cannot be written: ${reason(error)}`, undefined, { cause: error });
      });
      pending.push({ temporary, file });
      try {
        await write(handle);
        await handle.sync();
      } finally {
        await handle.close();
      }
    });
    for (const { temporary, file } of pending) await rename(temporary, file);
    for (const folder of new Set(pending.map(({ file }) => dirname(file)))) await syncFolder(folder);
  } finally {
    for (const { temporary } of pending) await rm(temporary, { force: true });
  }
}

/** Makes renames durable. Does nothing on systems that cannot open a folder (Windows). */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r').catch(() => undefined);
  await handle?.sync().catch(() => undefined);
  await handle?.close();
}

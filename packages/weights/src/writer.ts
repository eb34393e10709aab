/** Writing: complete files or none. Everything goes to a temporary file beside the target, is flushed, then renamed. */
import { type FileHandle, mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { type DType, bytesPerElement, elementCount, floatToBfloat, floatToHalf, isDType } from './dtype';
import { WeightsError, reason } from './errors';
import { MAX_HEADER_BYTES, show } from './header';

export type TensorData = Float32Array | Int32Array | BigInt64Array | Uint8Array;

/**
 * A tensor to write. Float32Array goes to F32, F16, BF16 or F64; Int32Array to I32 or I64; BigInt64Array to I64;
 * Uint8Array is taken as the bytes of any dtype. A function is called when its turn comes, so data need not all be in memory.
 */
export interface TensorToWrite {
  name: string;
  dtype: DType;
  shape: readonly number[];
  data: TensorData | (() => TensorData | Promise<TensorData>);
}

/** transformers refuses a file without this. */
const DEFAULT_METADATA = { format: 'pt' };

/**
 * Writes one safetensors file, atomically. Tensors are stored by falling element size, then name, as the reference does,
 * which keeps every tensor aligned.
 * @throws WeightsError for a name given twice, or data whose type or length contradicts dtype and shape; nothing is left behind
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
 * `model.safetensors` when all fits in one shard. Shards fill up in the given order. Weight files of an earlier save are
 * removed once the new ones stand.
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

/** Writes a text or byte file atomically: after a crash the old or the new content stands there, never a part. */
export async function writeFileAtomic(file: string, content: string | Uint8Array): Promise<void> {
  await withStaged(async (stage) => {
    await stage(file, (handle) => handle.writeFile(content));
  });
}

function byName([a]: readonly [string, string], [b]: readonly [string, string]): number {
  return a < b ? -1 : 1;
}

/** Refuses what cannot be written before a byte is. */
function checked(tensors: Iterable<TensorToWrite>, where: string): TensorToWrite[] {
  const list = [...tensors];
  const names = new Set<string>();
  for (const { name, dtype, shape } of list) {
    const at = `${where}: tensor ${show(name)}`;
    if (name === '__metadata__') throw new WeightsError(`${at}: this name is reserved by the format`);
    if (names.has(name)) throw new WeightsError(`${at}: expected each name once, found twice`);
    if (!isDType(dtype)) throw new WeightsError(`${at}: unknown dtype ${show(dtype)}`);
    if (
      !shape.every((size) => Number.isSafeInteger(size) && size >= 0) ||
      elementCount(shape) === undefined
    ) {
      throw new WeightsError(`${at}: shape: expected whole numbers, found [${shape.join(', ')}]`);
    }
    names.add(name);
  }
  return list;
}

function byteCount({ dtype, shape }: TensorToWrite): number {
  return elementCount(shape)! * bytesPerElement(dtype);
}

async function writeTensors(
  handle: FileHandle,
  tensors: readonly TensorToWrite[],
  metadata: Record<string, string>,
  file: string,
): Promise<void> {
  const sorted = [...tensors].sort(
    (a, b) => bytesPerElement(b.dtype) - bytesPerElement(a.dtype) || (a.name < b.name ? -1 : 1),
  );
  let at = 0;
  const header = new Map<string, unknown>(
    Object.keys(metadata).length > 0 ? [['__metadata__', metadata]] : [],
  );
  for (const tensor of sorted) {
    const { name, dtype, shape } = tensor;
    header.set(name, { dtype, shape, data_offsets: [at, (at += byteCount(tensor))] });
  }
  // Not one JSON.stringify of an object: `__proto__` and number-like names must survive, in order.
  const json = `{${[...header].map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`).join(',')}}`;
  const bytes = Buffer.from(json.padEnd(json.length + ((8 - (Buffer.byteLength(json) % 8)) % 8)));
  if (bytes.byteLength > MAX_HEADER_BYTES)
    throw new WeightsError(`${file}: header of ${bytes.byteLength} bytes is too long`);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(bytes.byteLength));
  await writeAll(handle, length);
  await writeAll(handle, bytes);
  for (const tensor of sorted) {
    const data = typeof tensor.data === 'function' ? await tensor.data() : tensor.data;
    await writeAll(handle, encode(tensor, data, file));
  }
}

/** Bytes of one tensor in its dtype. */
function encode({ name, dtype, shape }: TensorToWrite, data: TensorData, file: string): Uint8Array {
  const fail = (expected: string, found: string) =>
    new WeightsError(
      `${file}: tensor ${show(name)} ${dtype} [${shape.join(', ')}]: expected ${expected}, found ${found}`,
    );
  const count = elementCount(shape)!;
  const perItem = data instanceof Uint8Array ? bytesPerElement(dtype) : 1;
  if (data.length !== count * perItem) {
    throw fail(
      `${count * perItem} ${perItem > 1 || data instanceof Uint8Array ? 'bytes' : 'values'}`,
      `${data.length}`,
    );
  }
  if (data instanceof Uint8Array) return data;
  if (data instanceof Float32Array) {
    if (dtype === 'F32') return bytesOf(data);
    if (dtype === 'F16') return bytesOf(floatToHalf(data));
    if (dtype === 'BF16') return bytesOf(floatToBfloat(data));
    if (dtype === 'F64') return bytesOf(Float64Array.from(data));
  } else if (data instanceof Int32Array) {
    if (dtype === 'I32') return bytesOf(data);
    if (dtype === 'I64') return bytesOf(BigInt64Array.from(data, BigInt));
  } else if (data instanceof BigInt64Array && dtype === 'I64') return bytesOf(data);
  throw fail(`data for ${dtype}`, (data as object).constructor.name);
}

function bytesOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** Writes at the current position, in pieces below the system's cap on one write. */
async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.byteLength; ) {
    const { bytesWritten } = await handle.write(bytes, done, Math.min(bytes.byteLength - done, 1 << 30));
    done += bytesWritten;
  }
}

let staged = 0;

/** Files written by `stage` take their names together when `work` has succeeded; after a failure none is there. */
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

/** Makes renames durable where the system can open a folder; elsewhere (Windows) there is nothing to do. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r').catch(() => undefined);
  await handle?.sync().catch(() => undefined);
  await handle?.close();
}

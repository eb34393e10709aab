/** Reads safetensors by ranges, so that only requested tensors are in memory. Files and folders: files.ts. */
import type { Header, TensorEntry } from './header';
import { bytesPerElement, elementCount, toFloat32 } from './dtype';
import { WeightsError, reason } from './errors';
import { formatOf, HEAD_BYTES } from './formats';
import { headerLength, list, parseHeader, show } from './header';
import { absmaxOf, dequantise, withQuantised } from './quantised';

/** Opened weights. Reads may run concurrently. */
export interface WeightReader {
  /** The file or folder it was opened from. */
  readonly path: string;
  readonly entries: Map<string, TensorEntry>;
  readonly metadata: Record<string, string>;
  /** Tensors that a folder's index lists but their shard lacks: name → shard file. */
  readonly unresolved: ReadonlyMap<string, string>;
  /** One tensor's elements as float32, dequantised. @throws WeightsError for an unknown name, a short read, or inexact integers */
  readFloat32(name: string): Promise<Float32Array>;
  /**
   * One tensor's bytes as stored, little-endian: all, or those of the stored elements begin … end − 1.
   * @throws WeightsError for an unknown name, elements it does not have, or a short read
   */
  readRaw(name: string, begin?: number, end?: number): Promise<Uint8Array>;
  /**
   * Where one tensor's bytes are: in a file, or in memory; undefined in a Blob, which `readRaw` reads.
   * @throws WeightsError for an unknown name
   */
  span(name: string): { file: string; begin: number; bytes: number } | { bytes: Uint8Array } | undefined;
  /**
   * The absmax of a weight in 4 bits of bitsandbytes, one for each block of numbers, as float32.
   * @throws WeightsError for another tensor, or a short read
   */
  readAbsmax(name: string): Promise<Float32Array>;
  /** Closes the files; reading afterwards throws. */
  close(): Promise<void>;
}

/** Bytes that can be read at any place: a file, or memory. */
export interface ByteSource {
  /** A path, or a name for errors. */
  readonly file: string;
  /** Whether `file` is a path. */
  readonly isFile: boolean;
  /** In bytes. */
  readonly size: number;
  /** The bytes, if they are in memory. */
  readonly memory?: Uint8Array;
  /** Fills `to` from a position. @throws WeightsError naming `what` for a short read */
  read(to: Uint8Array, position: number, what: string): Promise<void>;
  close(): Promise<void>;
}

export interface OpenSource extends Header {
  source: ByteSource;
}

/** Converted dtypes are read in pieces of this size, so that a tensor is not in memory twice. */
const PIECE_BYTES = 8 << 20;

/**
 * Reads a safetensors file from bytes in memory, such as those that a browser fetched, or from a Blob, such as a file that was dropped on a
 * page, of which only the tensors that are asked for are read. The bytes must not change while they are read.
 * @param name names the bytes in errors
 * @throws WeightsError for a broken header
 */
export async function readSafetensors(
  bytes: Uint8Array | Blob,
  name = 'model.safetensors',
): Promise<WeightReader> {
  const source = 'size' in bytes ? sourceOfBlob(bytes, name) : sourceOfBytes(bytes, name);
  return await readerOf(name, [await openSource(source)], new Map());
}

const sourceOfBytes = (bytes: Uint8Array, file: string): ByteSource => ({
  file,
  isFile: false,
  size: bytes.byteLength,
  memory: bytes,
  read: async (to, position) => to.set(bytes.subarray(position, position + to.byteLength)),
  close: async () => undefined,
});

const sourceOfBlob = (blob: Blob, file: string): ByteSource => ({
  file,
  isFile: false,
  size: blob.size,
  async read(to, position, what) {
    const part = blob.slice(position, position + to.byteLength);
    const bytes = await part.arrayBuffer().catch((error: unknown) => {
      throw new WeightsError(`${file}: ${what}: cannot be read: ${reason(error)}`);
    });
    to.set(new Uint8Array(bytes));
  },
  close: async () => undefined,
});

/** Reads and checks the header. @throws WeightsError */
export async function openSource(source: ByteSource): Promise<OpenSource> {
  const first = new Uint8Array(Math.min(HEAD_BYTES, source.size));
  await source.read(first, 0, 'header length');
  const found = formatOf(first);
  if (found !== undefined && found !== 'safetensors')
    throw new WeightsError(`${source.file}: expected a safetensors file, found ${found}`);
  const header = new Uint8Array(headerLength(first, source.size, source.file));
  await source.read(header, 8, 'header');
  return { source, ...parseHeader(header, source.size, source.file) };
}

/**
 * A reader of one file, or of the shards of a folder.
 * @param weightMap of a folder's index: tensor name → shard
 * @throws WeightsError if two shards have the same tensor, or the scales of a quantised weight do not fit it
 */
export async function readerOf(
  path: string,
  files: readonly OpenSource[],
  weightMap: ReadonlyMap<string, string>,
): Promise<WeightReader> {
  const stored = entriesOf(path, files);
  const sources = new Map(files.map(({ source }) => [source.file, source]));
  const unresolved = new Map([...weightMap].filter(([name]) => !stored.has(name)));
  const readAll = (entry: TensorEntry) => readElements(entry, sources.get(entry.file)!);
  const entries = await withQuantised(stored, readAll);
  let closed = false;
  const find = (name: string): [TensorEntry, ByteSource] => {
    const entry = entries.get(name) ?? stored.get(name);
    if (closed) throw new WeightsError(`${path}: tensor ${show(name)}: read after close()`);
    if (!entry) throw notFound(path, name, entries.size, unresolved.get(name));
    return [entry, sources.get(entry.file)!];
  };
  return {
    path,
    entries,
    metadata: Object.assign({}, ...files.map((file) => file.metadata)) as Record<string, string>,
    unresolved,
    readFloat32: async (name) => {
      const [entry, source] = find(name);
      return entry.quantised ? dequantise(entry, entry.quantised, readAll) : readFloats(entry, source);
    },
    readAbsmax: async (name) => {
      const [{ quantised, file }] = find(name);
      if (quantised?.kind === 'BNB4') return absmaxOf(quantised, readAll);
      throw new WeightsError(`${file}: tensor ${show(name)}: expected a weight in 4 bits of bitsandbytes`);
    },
    span: (name) => spanOf(...find(name)),
    readRaw: async (name, begin, end) => readElements(...find(name), begin, end),
    async close() {
      if (closed) return;
      closed = true;
      await Promise.all(files.map(({ source }) => source.close()));
    },
  };
}

/** The tensors of all shards. @throws WeightsError if two shards have the same one */
function entriesOf(path: string, files: readonly OpenSource[]): Map<string, TensorEntry> {
  const entries = new Map<string, TensorEntry>();
  const twice: string[] = [];
  for (const [name, entry] of files.flatMap((file) => [...file.entries])) {
    const other = entries.get(name);
    if (other)
      twice.push(`tensor ${show(name)}: expected in one shard, found in ${other.file} and ${entry.file}`);
    entries.set(name, entry);
  }
  if (twice.length > 0)
    throw new WeightsError(`${path}: shards contradict each other:\n${list(twice)}`, twice);
  return entries;
}

function notFound(path: string, name: string, count: number, shard: string | undefined): WeightsError {
  const index = shard ? `; the index lists it in ${shard}, which does not have it` : '';
  return new WeightsError(
    `${path}: tensor ${show(name)}: expected among ${count} tensors, not found${index}`,
  );
}

function spanOf({ file, begin, end }: TensorEntry, { memory, isFile }: ByteSource) {
  if (memory) return { bytes: memory.subarray(begin, end) };
  return isFile ? { file, begin, bytes: end - begin } : undefined;
}

/** A tensor as float32, piece by piece. */
async function readFloats(entry: TensorEntry, source: ByteSource): Promise<Float32Array> {
  const { name, file, dtype, begin, end } = entry;
  const values = allocate(() => new Float32Array(elementCount(entry.shape)!), entry);
  if (dtype === 'F32') {
    await source.read(new Uint8Array(values.buffer), begin, name);
    return values;
  }
  const step = bytesPerElement(dtype);
  const piece = new Uint8Array(Math.min(PIECE_BYTES, end - begin));
  for (let at = begin; at < end; at += piece.byteLength) {
    const bytes = piece.subarray(0, Math.min(piece.byteLength, end - at));
    await source.read(bytes, at, name);
    toFloat32(dtype, bytes, values, (at - begin) / step, `${file}: tensor ${show(name)}`);
  }
  return values;
}

/** The stored bytes of the elements `first` … `last` − 1. */
async function readElements(
  entry: TensorEntry,
  source: ByteSource,
  first = 0,
  last = (entry.end - entry.begin) / bytesPerElement(entry.dtype),
): Promise<Uint8Array> {
  const { name, file } = entry;
  const step = bytesPerElement(entry.dtype);
  const count = (entry.end - entry.begin) / step;
  const isWhole = Number.isSafeInteger(first) && Number.isSafeInteger(last);
  if (!isWhole || first < 0 || first > last || last > count)
    throw new WeightsError(
      `${file}: tensor ${show(name)}: expected elements within 0 … ${count}, found ${first} … ${last}`,
    );
  const bytes = allocate(() => new Uint8Array((last - first) * step), entry);
  await source.read(bytes, entry.begin + first * step, name);
  return bytes;
}

/** A sparse file can declare tensors larger than any array. */
function allocate<T>(make: () => T, { file, name, dtype, shape }: TensorEntry): T {
  try {
    return make();
  } catch (error) {
    throw new WeightsError(
      `${file}: tensor ${show(name)}: ${dtype} [${shape.join(', ')}] does not fit: ${reason(error)}`,
    );
  }
}

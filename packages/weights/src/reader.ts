/** Reading: one safetensors file or a Hugging Face folder, by ranges, so that only what is asked for enters memory. */
import { constants } from 'node:fs';
import { type FileHandle, open, readFile, readdir, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { bytesPerElement, elementCount, toFloat32 } from './dtype';
import { WeightsError, reason } from './errors';
import {
  type Header,
  type TensorEntry,
  duplicateKeys,
  headerLength,
  isRecord,
  list,
  parseHeader,
  show,
} from './header';

/** An open file or folder of weights. Reads may run concurrently. */
export interface WeightReader {
  /** Where it was opened. */
  readonly path: string;
  readonly entries: Map<string, TensorEntry>;
  readonly metadata: Record<string, string>;
  /** Tensors that a folder's index names but the shard it points at does not hold: name → shard file. */
  readonly unresolved: ReadonlyMap<string, string>;
  /** One tensor's elements as float32. @throws WeightsError for an unknown name, a short read, or inexact integers */
  readFloat32(name: string): Promise<Float32Array>;
  /**
   * One tensor's bytes as stored, little-endian: all, or those of the elements begin … end − 1.
   * @throws WeightsError for an unknown name, elements it does not have, or a short read
   */
  readRaw(name: string, begin?: number, end?: number): Promise<Uint8Array>;
  /** Closes the files; reading afterwards throws. */
  close(): Promise<void>;
}

const SINGLE = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';
const MAX_INDEX_BYTES = 100_000_000;
/** Converted dtypes are read in pieces of this size: a tensor's stored and float32 forms never lie in memory together. */
const PIECE_BYTES = 8 << 20;

/**
 * Opens a .safetensors file, or a folder with `model.safetensors` or `model.safetensors.index.json` and its shards.
 * Headers are read and checked completely; data is read on demand.
 * @throws WeightsError when nothing is there, a shard is absent, or a header is broken
 */
export async function openWeights(fileOrFolder: string): Promise<WeightReader> {
  const info = await stat(fileOrFolder).catch((error: unknown) => {
    throw new WeightsError(
      `${fileOrFolder}: expected a .safetensors file or a model folder: ${reason(error)}`,
    );
  });
  if (!info.isDirectory()) return readerOf(fileOrFolder, [await openFile(fileOrFolder)], new Map());
  const names = new Set(await readdir(fileOrFolder));
  if (names.has(SINGLE))
    return readerOf(fileOrFolder, [await openFile(join(fileOrFolder, SINGLE))], new Map());
  if (names.has(INDEX)) return openSharded(fileOrFolder, names);
  const other = [...names].filter((name) => /\.(safetensors|bin|pt|pth|onnx)$/.test(name)).sort();
  throw new WeightsError(
    `${fileOrFolder}: expected ${SINGLE} or ${INDEX}, found ${other.length > 0 ? other.join(', ') : 'no weight files'}` +
      (other.some((name) => name.endsWith('.bin'))
        ? `; in Python, from_pretrained(…).save_pretrained(…) converts .bin files to safetensors`
        : ''),
  );
}

async function openSharded(folder: string, present: ReadonlySet<string>): Promise<WeightReader> {
  const index = join(folder, INDEX);
  const weightMap = await readIndex(index);
  const shards = [...new Set(weightMap.values())].sort();
  const absent = shards.filter((shard) => !present.has(shard));
  if (absent.length > 0) {
    throw new WeightsError(
      `${index}: expected ${shards.length} shards in ${folder}, absent:\n${list(absent)}`,
      absent.map((shard) => `${shard}: absent`),
    );
  }
  const files: OpenFile[] = [];
  try {
    for (const shard of shards) files.push(await openFile(join(folder, shard)));
    return readerOf(folder, files, weightMap);
  } catch (error) {
    await Promise.all(files.map(({ handle }) => handle.close()));
    throw error;
  }
}

/** An index's `weight_map`: tensor name → shard, a plain file name of the same folder. */
async function readIndex(index: string): Promise<Map<string, string>> {
  const { size } = await stat(index);
  if (size > MAX_INDEX_BYTES)
    throw new WeightsError(`${index}: expected at most ${MAX_INDEX_BYTES} bytes, found ${size}`);
  let text: string;
  let json: unknown;
  try {
    text = await readFile(index, 'utf8');
    json = JSON.parse(text);
  } catch (error) {
    throw new WeightsError(`${index}: expected JSON: ${reason(error)}`, undefined, { cause: error });
  }
  const map = isRecord(json) ? json['weight_map'] : undefined;
  if (!isRecord(map) || Object.keys(map).length === 0) {
    throw new WeightsError(
      `${index}: weight_map: expected an object of tensor name → shard file, found ${show(map)}`,
    );
  }
  const problems = duplicateKeys(text).map((name) => `${show(name)}: expected once, found twice`);
  for (const [name, shard] of Object.entries(map)) {
    // A path could lead out of the folder; real indexes hold plain names only.
    const plain =
      typeof shard === 'string' && /^[^/\\:\0]+\.safetensors$/.test(shard) && basename(shard) === shard;
    if (!plain)
      problems.push(`tensor ${show(name)}: expected a plain *.safetensors file name, found ${show(shard)}`);
  }
  if (problems.length > 0)
    throw new WeightsError(`${index}: broken weight_map:\n${list(problems)}`, problems);
  return new Map(Object.entries(map as Record<string, string>));
}

interface OpenFile extends Header {
  file: string;
  handle: FileHandle;
}

async function openFile(file: string): Promise<OpenFile> {
  let handle: FileHandle | undefined;
  try {
    // Non-blocking, so that a named pipe in place of a file cannot hang the program.
    handle = await open(file, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
    const info = await handle.stat();
    if (!info.isFile()) throw new WeightsError(`${file}: expected a regular file`);
    const first = new Uint8Array(Math.min(8, info.size));
    await readAt(handle, first, 0, file, 'header length');
    const header = new Uint8Array(headerLength(first, info.size, file));
    await readAt(handle, header, 8, file, 'header');
    return { file, handle, ...parseHeader(header, info.size, file) };
  } catch (error) {
    await handle?.close();
    if (error instanceof WeightsError) throw error;
    throw new WeightsError(`${file}: cannot be read: ${reason(error)}`, undefined, { cause: error });
  }
}

function readerOf(
  path: string,
  files: readonly OpenFile[],
  weightMap: ReadonlyMap<string, string>,
): WeightReader {
  const entries = entriesOf(path, files);
  const handles = new Map(files.map(({ file, handle }) => [file, handle]));
  const unresolved = new Map([...weightMap].filter(([name]) => !entries.has(name)));
  let closed = false;
  const find = (name: string): [TensorEntry, FileHandle] => {
    const entry = entries.get(name);
    if (closed) throw new WeightsError(`${path}: tensor ${show(name)}: read after close()`);
    if (!entry) throw notFound(path, name, entries.size, unresolved.get(name));
    return [entry, handles.get(entry.file)!];
  };
  return {
    path,
    entries,
    metadata: Object.assign({}, ...files.map((file) => file.metadata)) as Record<string, string>,
    unresolved,
    readFloat32: async (name) => readFloats(...find(name)),
    readRaw: async (name, begin, end) => readElements(...find(name), begin, end),
    async close() {
      if (closed) return;
      closed = true;
      await Promise.all(files.map(({ handle }) => handle.close()));
    },
  };
}

/** The tensors of all shards. @throws WeightsError when two shards hold the same one */
function entriesOf(path: string, files: readonly OpenFile[]): Map<string, TensorEntry> {
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
  const index = shard ? `; ${INDEX} promises it in ${shard}, which does not hold it` : '';
  return new WeightsError(
    `${path}: tensor ${show(name)}: expected among ${count} tensors, not found${index}`,
  );
}

/** A tensor widened to float32, piece by piece. */
async function readFloats(entry: TensorEntry, handle: FileHandle): Promise<Float32Array> {
  const { name, file, dtype, begin, end } = entry;
  const values = allocate(() => new Float32Array(elementCount(entry.shape)!), entry);
  if (dtype === 'F32') {
    await readAt(handle, new Uint8Array(values.buffer), begin, file, name);
    return values;
  }
  const step = bytesPerElement(dtype);
  const piece = new Uint8Array(Math.min(PIECE_BYTES, end - begin));
  for (let at = begin; at < end; at += piece.byteLength) {
    const bytes = piece.subarray(0, Math.min(piece.byteLength, end - at));
    await readAt(handle, bytes, at, file, name);
    toFloat32(dtype, bytes, values, (at - begin) / step, `${file}: tensor ${show(name)}`);
  }
  return values;
}

/** The stored bytes of the elements `first` … `last` − 1. */
async function readElements(
  entry: TensorEntry,
  handle: FileHandle,
  first = 0,
  last = elementCount(entry.shape)!,
): Promise<Uint8Array> {
  const { name, file } = entry;
  const count = elementCount(entry.shape)!;
  const isWhole = Number.isSafeInteger(first) && Number.isSafeInteger(last);
  if (!isWhole || first < 0 || first > last || last > count)
    throw new WeightsError(
      `${file}: tensor ${show(name)}: expected elements within 0 … ${count}, asked for ${first} … ${last}`,
    );
  const step = bytesPerElement(entry.dtype);
  const bytes = allocate(() => new Uint8Array((last - first) * step), entry);
  await readAt(handle, bytes, entry.begin + first * step, file, name);
  return bytes;
}

/** A sparse file can promise more than any array can hold. */
function allocate<T>(make: () => T, { file, name, dtype, shape }: TensorEntry): T {
  try {
    return make();
  } catch (error) {
    throw new WeightsError(
      `${file}: tensor ${show(name)}: ${dtype} [${shape.join(', ')}] does not fit: ${reason(error)}`,
    );
  }
}

/** Fills `to` from a position; one call reads at most 1 GiB, because the system caps a read at 2 GiB. */
async function readAt(
  handle: FileHandle,
  to: Uint8Array,
  position: number,
  file: string,
  what: string,
): Promise<void> {
  let done = 0;
  while (done < to.byteLength) {
    const size = Math.min(to.byteLength - done, 1 << 30);
    const { bytesRead } = await handle.read(to, done, size, position + done);
    if (bytesRead === 0) {
      throw new WeightsError(
        `${file}: ${what}: expected ${to.byteLength} bytes at ${position}, found ${done} (changed while open?)`,
      );
    }
    done += bytesRead;
  }
}

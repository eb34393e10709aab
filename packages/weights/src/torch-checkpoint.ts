/**
 * Reads the zip files of `torch.save` (PyTorch ≥ 1.6) without running anything. `data.pkl` lists the tensors, and `data/KEY` has
 * their storages, uncompressed, so that a tensor is read by its range.
 */
import type { FileHandle } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import { openPromise } from 'yauzl';
import type { Entry } from 'yauzl';
import { bytesPerElement, elementCount, toFloat32 } from './dtype';
import type { DType } from './dtype';
import { WeightsError, reason } from './errors';
import { formatOf, HEAD_BYTES } from './formats';
import { PickleGlobal, readPickle } from './pickle';
import type { PickleValue } from './pickle';
import { openRegular } from './regular-file';

/** A tensor of a checkpoint. */
export interface TorchTensor {
  dtype: DType;
  shape: number[];
}

/** An open checkpoint. */
export interface TorchCheckpoint {
  readonly path: string;
  /** Tensors of the state dict: the dictionary under `model` or `state_dict`, or the file's own. */
  readonly tensors: ReadonlyMap<string, TorchTensor>;
  /** Numbers, texts and booleans beside the state dict, such as `epoch`. */
  readonly metadata: ReadonlyMap<string, string | number | boolean>;
  /** A tensor's elements in row-major order. @throws WeightsError for an unknown name or damaged data */
  readFloat32(name: string): Promise<Float32Array>;
  close(): Promise<void>;
}

interface Member {
  /** Of the member's header, which is followed by its data. */
  header: number;
  size: number;
  crc: number;
}

class Storage {
  constructor(
    readonly dtype: DType,
    readonly key: string,
    readonly elements: number,
  ) {}
}

class StoredTensor implements TorchTensor {
  constructor(
    readonly storage: Storage,
    readonly offset: number,
    readonly shape: number[],
    readonly stride: number[],
  ) {}
  get dtype(): DType {
    return this.storage.dtype;
  }
}

const MAX_PICKLE_BYTES = 256 << 20;
const MAX_MEMBERS = 200_000;
const STORAGES: Record<string, DType> = {
  DoubleStorage: 'F64',
  FloatStorage: 'F32',
  HalfStorage: 'F16',
  BFloat16Storage: 'BF16',
  LongStorage: 'I64',
  IntStorage: 'I32',
  ShortStorage: 'I16',
  CharStorage: 'I8',
  ByteStorage: 'U8',
  BoolStorage: 'BOOL',
};

/**
 * Opens a checkpoint; tensors are read on demand.
 * @throws WeightsError for another format (with what to do), a damaged file, or a pickle with more than data
 */
export async function openTorchCheckpoint(path: string): Promise<TorchCheckpoint> {
  await refuseOtherFormats(path);
  const members = await listMembers(path);
  const pickle = [...members.keys()].find((name) => /^[^/]+\/data\.pkl$/.test(name));
  if (pickle === undefined)
    throw new WeightsError(`${path}: expected a checkpoint of torch.save, found a zip file without data.pkl`);
  const root = pickle.slice(0, -'data.pkl'.length);
  const { handle } = await openRegular(path);
  try {
    const order = members.get(`${root}byteorder`);
    if (order && new TextDecoder().decode(await readMember(handle, path, order)) !== 'little')
      throw new WeightsError(`${path}: expected little-endian tensors, found byteorder big`);
    const { size } = members.get(pickle)!;
    if (size > MAX_PICKLE_BYTES)
      throw new WeightsError(`${path}: data.pkl: expected at most ${MAX_PICKLE_BYTES} bytes, found ${size}`);
    const bytes = await readMember(handle, path, members.get(pickle)!);
    const found = stateDict(readPickle(bytes, torchRules(), `${path}: data.pkl`), path);
    for (const [name, tensor] of found.tensors)
      checkTensor(path, name, tensor, members.get(`${root}data/${tensor.storage.key}`));
    return {
      path,
      ...found,
      readFloat32: async (name) => {
        const tensor = found.tensors.get(name);
        if (!tensor) throw new WeightsError(`${path}: there is no tensor "${name}"`);
        return readTensor(handle, path, name, tensor, members.get(`${root}data/${tensor.storage.key}`)!);
      },
      close: () => handle.close(),
    };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function refuseOtherFormats(path: string): Promise<void> {
  const head = new Uint8Array(HEAD_BYTES);
  let length: number;
  try {
    const { handle } = await openRegular(path);
    ({ bytesRead: length } = await handle.read(head, 0, HEAD_BYTES, 0).finally(() => handle.close()));
  } catch (error) {
    throw new WeightsError(`${path}: expected a checkpoint file: ${reason(error)}`, undefined, {
      cause: error,
    });
  }
  if (head[0] === 0x50 && head[1] === 0x4b) return;
  const legacy = length > 1 && head[0] === 0x80 && head[1]! <= 5;
  const other = formatOf(head.subarray(0, length));
  throw new WeightsError(
    `${path}: expected a zip file of torch.save (PyTorch 1.6 or later), found ` +
      (legacy
        ? 'the older format, which is a bare pickle; in Python: torch.save(torch.load(FILE, weights_only=True), NEW_FILE)'
        : (other ?? 'something else')),
  );
}

async function listMembers(path: string): Promise<Map<string, Member>> {
  const members = new Map<string, Member>();
  try {
    const zip = await openPromise(path, { autoClose: false });
    try {
      if (zip.entryCount > MAX_MEMBERS) throw new Error(`${zip.entryCount} members are too many`);
      for await (const entry of zip.eachEntry()) {
        refuseEntry(entry, members);
        const { relativeOffsetOfLocalHeader: header, uncompressedSize: size, crc32: crc } = entry;
        members.set(entry.fileName, { header, size, crc });
      }
    } finally {
      zip.close();
    }
  } catch (error) {
    if (error instanceof WeightsError) throw error;
    throw new WeightsError(`${path}: the zip file is damaged or cut off: ${reason(error)}`, undefined, {
      cause: error,
    });
  }
  return members;
}

function refuseEntry(entry: Entry, members: ReadonlyMap<string, Member>): void {
  if (entry.compressionMethod !== 0)
    throw new Error(`${entry.fileName} is compressed; torch.save stores plainly`);
  if (entry.compressedSize !== entry.uncompressedSize) throw new Error(`${entry.fileName} has two sizes`);
  if (members.has(entry.fileName)) throw new Error(`${entry.fileName} occurs twice`);
}

async function readMember(
  handle: FileHandle,
  path: string,
  { header, size, crc }: Member,
): Promise<Uint8Array> {
  // 30 bytes, the last four of which are the lengths of the name and of an extra field after them
  const fixed = Buffer.from(await readRange(handle, path, header, 30));
  if (fixed.readUInt32LE(0) !== 0x04034b50)
    throw new WeightsError(`${path}: damaged: expected a member of the zip file at byte ${header}`);
  const start = header + 30 + fixed.readUInt16LE(26) + fixed.readUInt16LE(28);
  const bytes = await readRange(handle, path, start, size);
  if (crc32(bytes) !== crc)
    throw new WeightsError(`${path}: damaged: a checksum at byte ${start} does not fit`);
  return bytes;
}

async function readRange(handle: FileHandle, path: string, start: number, size: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(size);
  for (let at = 0; at < size;) {
    const most = Math.min(size - at, 1 << 30);
    const { bytesRead } = await handle.read(bytes, at, most, start + at).catch((error: unknown) => {
      throw new WeightsError(`${path}: cannot be read at byte ${start + at}: ${reason(error)}`);
    });
    if (bytesRead === 0) throw new WeightsError(`${path}: cut off at byte ${start + at}`);
    at += bytesRead;
  }
  return bytes;
}

/** The globals of PyTorch's checkpoints, as data. */
function torchRules() {
  const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
  const isCounts = (value: unknown): value is number[] => Array.isArray(value) && value.every(isCount);
  const call = (name: string, args: PickleValue[]): PickleValue | undefined => {
    if (name === 'collections OrderedDict' && args.length === 0) return new Map();
    if (name === 'torch Size') return args[0];
    if (name === 'torch._utils _rebuild_parameter')
      return args[0] instanceof StoredTensor ? args[0] : undefined;
    if (name !== 'torch._utils _rebuild_tensor_v2') return undefined;
    const [storage, offset, shape, stride] = args;
    const isTensor =
      storage instanceof Storage &&
      isCount(offset) &&
      isCounts(shape) &&
      isCounts(stride) &&
      shape.length === stride.length;
    return isTensor ? new StoredTensor(storage, offset, shape, stride) : undefined;
  };
  const persistent = (id: PickleValue): PickleValue | undefined => {
    if (!Array.isArray(id) || id[0] !== 'storage') return undefined;
    const [, type, key, , elements] = id;
    const name = type instanceof PickleGlobal ? type.name.replace(/^torch /, '') : '';
    if (!Object.hasOwn(STORAGES, name) || typeof key !== 'string' || !isCount(elements)) return undefined;
    return new Storage(STORAGES[name]!, key, elements);
  };
  return { call, persistent };
}

function stateDict(value: PickleValue, path: string) {
  if (!(value instanceof Map)) throw new WeightsError(`${path}: expected a dictionary, found another object`);
  const inner = [value.get('model'), value.get('state_dict')].find((one) => one instanceof Map);
  const tensors = new Map<string, StoredTensor>();
  for (const [name, one] of (inner ?? value) as Map<PickleValue, PickleValue>)
    if (typeof name === 'string' && one instanceof StoredTensor) tensors.set(name, one);
  if (tensors.size === 0)
    throw new WeightsError(
      `${path}: expected tensors by name, at the top or under "model", found ${[...value.keys()].slice(0, 8).map(String).join(', ') || 'an empty dictionary'}`,
    );
  const metadata = new Map<string, string | number | boolean>();
  for (const [name, one] of value)
    if (typeof name === 'string' && ['string', 'number', 'boolean'].includes(typeof one))
      metadata.set(name, one as string | number | boolean);
  return { tensors, metadata };
}

/** A tensor must lie in its storage, and must not be larger: repeated elements (stride 0) could claim any size. */
function checkTensor(path: string, name: string, tensor: StoredTensor, member: Member | undefined): void {
  const { storage, offset, shape, stride } = tensor;
  const wrong = (what: string) =>
    new WeightsError(`${path}: tensor "${name}" [${shape.join(', ')}]: ${what}`);
  if (!member) throw wrong(`its storage data/${storage.key} is absent`);
  const elements = member.size / bytesPerElement(storage.dtype);
  if (elements !== storage.elements)
    throw wrong(`expected a storage of ${storage.elements} ${storage.dtype}, found ${member.size} bytes`);
  const count = elementCount(shape);
  if (count === 0) return;
  const last = offset + shape.reduce((sum, size, i) => sum + (size - 1) * stride[i]!, 0);
  if (count === undefined || count > elements || last >= elements)
    throw wrong(`it does not lie in its storage of ${elements} elements`);
}

async function readTensor(
  handle: FileHandle,
  path: string,
  name: string,
  { storage, offset, shape, stride }: StoredTensor,
  member: Member,
): Promise<Float32Array> {
  const count = elementCount(shape)!;
  const bytes = await readMember(handle, path, member);
  const all = new Float32Array(storage.elements);
  toFloat32(storage.dtype, bytes, all, 0, `${path}: tensor "${name}"`);
  const plain = shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1));
  if (shape.every((size, i) => size === 1 || stride[i] === plain[i]))
    return all.slice(offset, offset + count);
  const index = shape.map(() => 0);
  return Float32Array.from({ length: count }, () => {
    const value = all[index.reduce((sum, at, i) => sum + at * stride[i]!, offset)]!;
    for (let i = shape.length - 1; i >= 0 && ++index[i]! === shape[i]; i--) index[i] = 0;
    return value;
  });
}

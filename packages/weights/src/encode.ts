/** Tensors as the bytes of a safetensors file. */
import type { DType } from './dtype';
import { bytesPerElement, elementCount, floatToBfloat, floatToHalf, isDType } from './dtype';
import { WeightsError } from './errors';
import { MAX_HEADER_BYTES, show } from './header';

export type TensorData = Float32Array | Int32Array | BigInt64Array | Uint8Array;

/**
 * A tensor to write. Float32Array goes to F32, F16, BF16 or F64; Int32Array to I32 or I64; BigInt64Array to I64;
 * Uint8Array is the bytes of any dtype. A function is called when the tensor is written, so not all data must be in memory.
 */
export interface TensorToWrite {
  name: string;
  dtype: DType;
  shape: readonly number[];
  data: TensorData | (() => TensorData | Promise<TensorData>);
}

/** transformers rejects a file without this. */
export const DEFAULT_METADATA = { format: 'pt' };

/**
 * A safetensors file in memory.
 * @throws WeightsError for duplicate names, or data whose type or length contradicts dtype and shape
 */
export async function safetensorsBytes(
  tensors: Iterable<TensorToWrite>,
  metadata: Record<string, string> = DEFAULT_METADATA,
): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for await (const piece of safetensorsPieces(checked(tensors, 'safetensors'), metadata, 'safetensors'))
    pieces.push(piece);
  const bytes = new Uint8Array(pieces.reduce((sum, { byteLength }) => sum + byteLength, 0));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.byteLength;
  }
  return bytes;
}

/** Rejects tensors that cannot be written, before anything is written. */
export function checked(tensors: Iterable<TensorToWrite>, where: string): TensorToWrite[] {
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

export function byteCount({ dtype, shape }: Pick<TensorToWrite, 'dtype' | 'shape'>): number {
  return elementCount(shape)! * bytesPerElement(dtype);
}

/**
 * A safetensors file, piece by piece. Tensors are ordered by decreasing element size, then name, as in the reference
 * implementation, which keeps every tensor aligned.
 * @throws WeightsError for data whose type or length contradicts dtype and shape
 */
export async function* safetensorsPieces(
  tensors: readonly TensorToWrite[],
  metadata: Record<string, string>,
  file: string,
  align?: number,
): AsyncGenerator<Uint8Array, void, undefined> {
  const sorted = [...tensors].sort(
    (a, b) => bytesPerElement(b.dtype) - bytesPerElement(a.dtype) || (a.name < b.name ? -1 : 1),
  );
  yield safetensorsHeader(sorted, metadata, file, align);
  for (const tensor of sorted) {
    const data = typeof tensor.data === 'function' ? await tensor.data() : tensor.data;
    yield encode(tensor, data, file);
  }
}

/**
 * The first bytes of a file whose tensors follow in this order. The first tensor begins at a multiple of `align` bytes.
 * @throws WeightsError if it is too long
 */
export function safetensorsHeader(
  tensors: readonly Omit<TensorToWrite, 'data'>[],
  metadata: Record<string, string>,
  file: string,
  align = 8,
): Uint8Array {
  let at = 0;
  const header = new Map<string, unknown>(
    Object.keys(metadata).length > 0 ? [['__metadata__', metadata]] : [],
  );
  for (const tensor of tensors) {
    const { name, dtype, shape } = tensor;
    header.set(name, { dtype, shape, data_offsets: [at, (at += byteCount(tensor))] });
  }
  // JSON.stringify of one object would lose `__proto__` and the order of number-like names.
  const json = `{${[...header].map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`).join(',')}}`;
  const text = new TextEncoder().encode(json);
  const bytes = new Uint8Array(Math.ceil((8 + text.byteLength) / align) * align).fill(0x20); // padded with spaces
  bytes.set(text, 8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(bytes.byteLength - 8), true);
  if (bytes.byteLength - 8 > MAX_HEADER_BYTES)
    throw new WeightsError(`${file}: header of ${bytes.byteLength - 8} bytes is too long`);
  return bytes;
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

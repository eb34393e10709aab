/** Weights that stay in the encoding of their checkpoint, each in one buffer with its scales and tables. */
import { spanBytes, spanLength, spansOf } from '@blip2/nn';
import type { Encoding, ReadFile, Span, StoredWeight } from '@blip2/nn';

/** Files of weights; given by Node. */
export interface WeightFiles {
  read: ReadFile;
  /** Another text if the file was changed. */
  stamp(file: string): string;
}

export interface StoredEntry {
  kind: Encoding['kind'];
  /** Absent while the weight is not on the GPU. */
  buffer?: GPUBuffer;
  /** Columns, and the words at which the second, third and last part begin. */
  view: readonly [columns: number, second: number, third: number, last: number];
  rounded: boolean;
  rows: number;
  columns: number;
  /** Where a weight that lies in a file is read when it is used. */
  source?: { weight: StoredWeight; file: string; stamp: string };
}

/** Fewest numbers of a stored weight; smaller ones are float32. */
export const smallestStored = 1 << 20;

/** Bytes of a file that are read and uploaded at a time. */
const PIECE = 16 << 20;

/** Places the spans in a buffer, each at a multiple of 4 bytes. */
function layout(spans: readonly Span[]): { at: number[]; size: number } {
  let size = 0;
  const at = spans.map((span) => {
    const begin = size;
    size = Math.ceil((begin + spanLength(span)) / 4) * 4;
    return begin;
  });
  return { at, size };
}

/**
 * Uploads a weight, or prepares that of one in a file. @throws Error if it does not fit into a buffer that shaders read, or a span is too
 * short
 */
export function openWeight(device: GPUDevice, weight: StoredWeight, files?: WeightFiles): StoredEntry {
  const { shape, data, encoding, rounded = false } = weight;
  const [rows, columns] = shape;
  checkBytes(weight);
  const { at, size } = layout(spansOf(weight));
  const most = device.limits.maxStorageBufferBindingSize;
  if (size > most)
    throw new Error(`webgpu: expected a weight of at most ${most} bytes, found [${shape}] with ${size}`);
  const words = at.map((byte) => byte / 4);
  const last = encoding.kind === 'INT4' ? words[3] : encoding.kind === 'INT8' ? words[2] : 0;
  const view = [columns, words[1] ?? 0, words[2] ?? 0, last ?? 0] as const;
  const entry = { kind: encoding.kind, view, rounded, rows, columns };
  if (!('file' in data) || !files) return { ...entry, buffer: uploaded(device, weight, files) };
  return { ...entry, source: { weight, file: data.file, stamp: files.stamp(data.file) } };
}

/** The buffer of a weight, which is read from its file if it is not on the GPU. @throws Error if the file was changed or deleted */
export function bufferOfWeight(device: GPUDevice, entry: StoredEntry, files?: WeightFiles): GPUBuffer {
  if (entry.buffer) return entry.buffer;
  const { file, stamp, weight } = entry.source!;
  if (files!.stamp(file) !== stamp)
    throw new Error(`${file}: expected the file that was opened, found it changed or deleted; start again`);
  return (entry.buffer = uploaded(device, weight, files));
}

/** All parts of a weight in one buffer, piece by piece. */
function uploaded(device: GPUDevice, weight: StoredWeight, files: WeightFiles | undefined): GPUBuffer {
  const spans = spansOf(weight);
  const { at, size } = layout(spans);
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  const buffer = device.createBuffer({ size: Math.max(16, size), usage, label: 'stored weight' });
  try {
    spans.forEach((span, i) => write(device, buffer, at[i]!, span, files?.read));
  } catch (error) {
    buffer.destroy();
    throw error;
  }
  return buffer;
}

/** Bytes of the numbers of a weight. */
function expectedBytes({ shape: [rows, columns], encoding: { kind } }: StoredWeight): number {
  const [blocks, numbers] = [Math.ceil(rows / 32), rows * columns];
  switch (kind) {
    case 'F32':
      return 4 * numbers;
    case 'F16':
    case 'BF16':
      return 2 * numbers;
    case 'INT8':
      return blocks * Math.ceil(columns / 32) * 1024;
    case 'INT4':
      return blocks * Math.ceil(columns / 64) * 1024;
    case 'BNB8':
      return numbers;
    case 'BNB4':
      return Math.ceil(numbers / 2);
  }
}

function checkBytes(weight: StoredWeight): void {
  const [expected, found] = [expectedBytes(weight), spanLength(weight.data)];
  if (found !== expected)
    throw new Error(
      `storedTensor: expected ${expected} bytes of ${weight.encoding.kind} for a weight [${weight.shape}], found ${found}`,
    );
}

function write(
  device: GPUDevice,
  buffer: GPUBuffer,
  at: number,
  span: Span,
  readFile: ReadFile | undefined,
): void {
  const bytes = spanLength(span);
  for (let done = 0; done < bytes; done += PIECE) {
    const length = Math.min(PIECE, bytes - done);
    const piece = spanBytes(span, done, length, readFile);
    const whole = length % 4 === 0 ? piece : padded(piece);
    device.queue.writeBuffer(buffer, at + done, whole.buffer as ArrayBuffer, whole.byteOffset, whole.length);
  }
}

/** writeBuffer takes multiples of 4 bytes. */
function padded(piece: Uint8Array): Uint8Array {
  const whole = new Uint8Array(Math.ceil(piece.length / 4) * 4);
  whole.set(piece);
  return whole;
}

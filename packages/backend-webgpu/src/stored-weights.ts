/** Weights that stay in the encoding of their checkpoint, each in one buffer with its scales and tables. */
import { spansOf } from '@blip2/nn';
import type { Encoding, Span, StoredWeight } from '@blip2/nn';

/** Reads `length` bytes of a file; given by Node. */
export type ReadFile = (file: string, at: number, length: number) => Uint8Array;

export interface StoredEntry {
  kind: Encoding['kind'];
  buffer: GPUBuffer;
  /** Columns, and the words at which the second, third and last part begin. */
  view: readonly [columns: number, second: number, third: number, last: number];
  rounded: boolean;
  rows: number;
  columns: number;
}

/** Fewest numbers of a stored weight; smaller ones are float32. */
export const smallestStored = 1 << 20;

/** Bytes of a file that are read and uploaded at a time. */
const PIECE = 16 << 20;

const bytesOf = ({ bytes }: Span) => (typeof bytes === 'number' ? bytes : bytes.length);

/** Places the spans in a buffer, each at a multiple of 4 bytes. */
function layout(spans: readonly Span[]): { at: number[]; size: number } {
  let size = 0;
  const at = spans.map((span) => {
    const begin = size;
    size = Math.ceil((begin + bytesOf(span)) / 4) * 4;
    return begin;
  });
  return { at, size };
}

/**
 * Uploads a weight piece by piece. @throws Error if it does not fit into a buffer that shaders read, or a span is too short
 */
export function upload(device: GPUDevice, weight: StoredWeight, readFile: ReadFile | undefined): StoredEntry {
  const { shape, encoding, rounded = false } = weight;
  const [rows, columns] = shape;
  const spans = spansOf(weight);
  checkBytes(weight);
  const { at, size } = layout(spans);
  const most = device.limits.maxStorageBufferBindingSize;
  if (size > most)
    throw new Error(`webgpu: expected a weight of at most ${most} bytes, found [${shape}] with ${size}`);
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  const buffer = device.createBuffer({ size: Math.max(16, size), usage, label: 'stored weight' });
  spans.forEach((span, i) => write(device, buffer, at[i]!, span, readFile));
  const words = at.map((byte) => byte / 4);
  const last = encoding.kind === 'INT4' ? words[3] : encoding.kind === 'INT8' ? words[2] : 0;
  const view = [columns, words[1] ?? 0, words[2] ?? 0, last ?? 0] as const;
  return { kind: encoding.kind, buffer, view, rounded, rows, columns };
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
  const [expected, found] = [expectedBytes(weight), bytesOf(weight.data)];
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
  const bytes = bytesOf(span);
  for (let done = 0; done < bytes; done += PIECE) {
    const length = Math.min(PIECE, bytes - done);
    let piece: Uint8Array;
    if (!('file' in span)) piece = span.bytes.subarray(done, done + length);
    else if (readFile) piece = readFile(span.file, span.begin + done, length);
    else throw new Error(`webgpu: expected bytes in memory, found the file ${span.file}`);
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

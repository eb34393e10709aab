/** Weights that stay encoded as in their checkpoint, in memory-mapped files or in memory of the addon. */
import { closeSync, openSync, readSync } from 'node:fs';
import { spanBytes, spanLength, spansOf, storedBytes } from '@blip2/nn';
import type { Encoding, Span, StoredWeight } from '@blip2/nn';
import type { NativeAddon, StoredHandle } from './addon';

/** One stored weight [rows, columns]. */
export interface StoredEntry {
  handle: StoredHandle;
  /** Its numbers were rounded when it was loaded. */
  rounded: boolean;
  rows: number;
  columns: number;
  /** Bytes of the memory-mapped file, or of copies. */
  bytes: number;
  /** Those of the columns, of INT8. They are read at once, since a file may be removed while it is mapped. */
  factors?: Float32Array;
}

/**
 * Fewest numbers of a stored weight. Smaller ones are ordinary float32 tensors with a packed copy (see PackedWeights), which is
 * faster and needs little memory.
 */
export const smallestStored = 1 << 20;

/** The encodings that the addon can read (native/weight_view.h). */
export const encodings: ReadonlySet<Encoding['kind']> = new Set([
  'F32',
  'F16',
  'BF16',
  'INT8',
  'INT4',
  'BNB8',
  'BNB4',
]);

const floatsOf = (span: Span) =>
  new Float32Array(spanBytes(span, 0, spanLength(span), readFile).slice().buffer);

function readFile(file: string, at: number, length: number): Uint8Array {
  const handle = openSync(file, 'r');
  try {
    const bytes = new Uint8Array(length);
    const found = readSync(handle, bytes, 0, length, at);
    if (found < length) throw new Error(`${file}: expected ${at + length} bytes, found ${at + found}`);
    return bytes;
  } finally {
    closeSync(handle);
  }
}

/** The stored weights by the dataId of their tensors. */
export class StoredWeights {
  private readonly entries = new Map<object, StoredEntry>();
  /** Bytes in use. */
  bytes = 0;
  /** The same as counted by tfjs: four bytes a number. */
  countedBytes = 0;

  constructor(private readonly addon: NativeAddon) {}

  /**
   * Opens a weight of at least `atLeast` numbers; undefined for a smaller one, unless it is INT8 or INT4. `rounded` also makes a bfloat16 copy of
   * float32 and float16, for bfloat16 matmul. @throws Error if the spans do not fit the weight
   */
  open(weight: StoredWeight, rounded: boolean, atLeast: number): StoredEntry | undefined {
    const { shape, data, encoding } = weight;
    const [rows, columns] = shape;
    const { kind } = encoding;
    if (rows * columns < (kind.startsWith('INT') ? 1 : Math.max(1, atLeast))) return undefined;
    const copies = rounded && (kind === 'F32' || kind === 'F16');
    const handle = this.addon.storeWeight(kind, rows, columns, spansOf(weight), copies);
    // After rounding a memory-mapped file, only the copy stays in memory.
    const own = copies && 'file' in data ? 0 : storedBytes(weight);
    const bytes = own + (copies ? rows * columns * 2 : 0);
    const factors = encoding.kind === 'INT8' ? floatsOf(encoding.factors) : undefined;
    return { handle, rounded: weight.rounded ?? false, rows, columns, bytes, factors };
  }

  /**
   * The INT8 or INT4 encoding of a weight in another one, INT4 also by the root [columns, columns] of its inputs.
   * @throws Error if the spans do not fit the weight
   */
  quantised(weight: StoredWeight, factors: Float32Array, bits: 8 | 4, root?: Float32Array): StoredWeight {
    const { shape, encoding } = weight;
    const [rows, columns] = shape;
    const panels = Math.ceil(rows / 32) * Math.ceil(columns / (bits === 8 ? 32 : 64));
    const [blocks, steps] = [new Uint8Array(panels * 1024), new Uint8Array(bits === 8 ? 0 : panels * 32)];
    const scales = new Float32Array(rows);
    const handle = this.addon.storeWeight(encoding.kind, rows, columns, spansOf(weight), false);
    try {
      if (bits === 8) this.addon.quantise(handle, factors, blocks, scales);
      else if (root) {
        const room = new Float32Array(rows * (columns + 64));
        this.addon.quantiseGptq(handle, factors, root, room, blocks, steps, scales);
      } else this.addon.quantiseInt4(handle, factors, blocks, steps, scales);
    } finally {
      this.addon.releaseStored(handle);
    }
    const span = ({ buffer }: Float32Array) => ({ bytes: new Uint8Array(buffer) });
    const floats = { scales: span(scales), factors: span(factors.slice()) };
    const made: Encoding =
      bits === 8 ? { kind: 'INT8', ...floats } : { kind: 'INT4', steps: { bytes: steps }, ...floats };
    return { shape, data: { bytes: blocks }, encoding: made, rounded: true };
  }

  add(dataId: object, entry: StoredEntry): void {
    this.entries.set(dataId, entry);
    this.bytes += entry.bytes;
    this.countedBytes += entry.rows * entry.columns * 4;
  }

  find(dataId: object): StoredEntry | undefined {
    return this.entries.get(dataId);
  }

  /** All numbers as float32, exactly. */
  floats({ handle, rows, columns }: StoredEntry): Float32Array {
    const values = new Float32Array(rows * columns);
    this.addon.storedFloats(handle, values);
    return values;
  }

  /** Frees the weight of a tensor that was disposed of. */
  drop(dataId: object): void {
    const entry = this.entries.get(dataId);
    if (!entry) return;
    this.entries.delete(dataId);
    this.bytes -= entry.bytes;
    this.countedBytes -= entry.rows * entry.columns * 4;
    this.addon.releaseStored(entry.handle);
  }
}

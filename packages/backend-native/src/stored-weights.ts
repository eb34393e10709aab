/** Weights that keep their encoding, in mapped files or in the addon's memory. */
import { spansOf, storedBytes } from '@blip2/nn';
import type { Encoding, StoredWeight } from '@blip2/nn';
import type { NativeAddon, StoredHandle } from './addon';

/** One stored weight [rows, columns]. */
export interface StoredEntry {
  handle: StoredHandle;
  rows: number;
  columns: number;
  /** Memory that it takes: pages of the mapped file, or copies. */
  bytes: number;
}

/**
 * Numbers from which a weight is stored. A smaller one is an ordinary float32 tensor: its packed form is kept
 * (see PackedWeights), which is faster than packing at every use, and costs little.
 */
export const smallestStored = 1 << 20;

/** The encodings that the addon reads (native/weight_view.h). */
export const encodings: ReadonlySet<Encoding['kind']> = new Set(['F32', 'F16', 'BF16']);

/** The stored weights, by their tensors' dataId. */
export class StoredWeights {
  private readonly entries = new Map<object, StoredEntry>();
  /** Bytes in use, and what tfjs counts for them: four bytes a number. */
  bytes = 0;
  countedBytes = 0;

  constructor(private readonly addon: NativeAddon) {}

  /**
   * Stores a weight of at least `atLeast` numbers. `rounded`: matmul will be in bfloat16, so float32 and float16 are rounded
   * once, now. @throws when the spans do not hold such a weight
   */
  open(weight: StoredWeight, rounded: boolean, atLeast: number): StoredEntry | undefined {
    const { shape, data, encoding } = weight;
    const [rows, columns] = shape;
    if (rows * columns < Math.max(1, atLeast)) return undefined;
    const copies = rounded && encoding.kind !== 'BF16';
    const handle = this.addon.storeWeight(encoding.kind, rows, columns, spansOf(weight), copies);
    // Of a mapped file that was rounded, only the copy stays in memory.
    const own = copies && 'file' in data ? 0 : storedBytes(weight);
    return { handle, rows, columns, bytes: own + (copies ? rows * columns * 2 : 0) };
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

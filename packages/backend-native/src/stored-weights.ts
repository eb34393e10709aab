import type { NativeAddon, StoredDType, StoredHandle } from './addon';

/** Where a matrix lies in a safetensors file. */
export interface StoredSource {
  file: string;
  /** First byte, counted from the start of the file. */
  begin: number;
  dtype: string;
  shape: readonly number[];
}

/** One matrix [rows, columns] that stays in its file. */
export interface StoredEntry {
  handle: StoredHandle;
  rows: number;
  columns: number;
  /** Memory it takes: pages of the mapped file, or of the bfloat16 copy. */
  bytes: number;
}

/**
 * Elements from which a matrix stays in its file. A smaller one is an ordinary float32 tensor: its packed form is kept
 * (see PackedWeights), which is faster than packing at every use, and costs little.
 */
export const smallestStored = 1 << 20;

const itemBytes: Record<StoredDType, number> = { F32: 4, F16: 2, BF16: 2 };

/** The matrices that live in mapped files, by their tensors' dataId. */
export class StoredWeights {
  private readonly entries = new Map<object, StoredEntry>();
  /** What is held now, and how much tfjs believes it to be: it counts four bytes an element. */
  bytes = 0;
  countedBytes = 0;

  constructor(private readonly addon: NativeAddon) {}

  /**
   * The matrix, if it is of a kind and size that is stored. `rounded`: products will ask for bfloat16, so other types
   * are rounded once, now. @throws when the file does not hold it
   */
  open(
    { file, begin, dtype, shape }: StoredSource,
    rounded: boolean,
    atLeast: number,
  ): StoredEntry | undefined {
    const [rows, columns] = shape as [number, number];
    if (shape.length !== 2 || rows * columns < Math.max(1, atLeast) || !isStoredDType(dtype))
      return undefined;
    const handle = this.addon.storeMatrix(file, begin, dtype, rows, columns, rounded);
    return { handle, rows, columns, bytes: rows * columns * (rounded ? 2 : itemBytes[dtype]) };
  }

  add(dataId: object, entry: StoredEntry): void {
    this.entries.set(dataId, entry);
    this.bytes += entry.bytes;
    this.countedBytes += entry.rows * entry.columns * 4;
  }

  find(dataId: object): StoredEntry | undefined {
    return this.entries.get(dataId);
  }

  /** All elements as float32, exactly as the file has them. */
  floats({ handle, rows, columns }: StoredEntry): Float32Array {
    const values = new Float32Array(rows * columns);
    this.addon.storedFloats(handle, values);
    return values;
  }

  /** The data is gone. */
  drop(dataId: object): void {
    const entry = this.entries.get(dataId);
    if (!entry) return;
    this.entries.delete(dataId);
    this.bytes -= entry.bytes;
    this.countedBytes -= entry.rows * entry.columns * 4;
    this.addon.releaseStored(entry.handle);
  }
}

function isStoredDType(dtype: string): dtype is StoredDType {
  return Object.hasOwn(itemBytes, dtype);
}

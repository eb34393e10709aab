import type { Precision } from '@blip2/nn';
import type { NativeAddon } from './addon';
import type { BufferPool } from './buffer-pool';

/** One orientation of one weight in one precision. */
interface Entry {
  uses: number;
  packed?: Float32Array;
}

/** Smaller weights are packed at every use: it takes little time. */
const smallest = 4096;
/** Only for these numbers of rows is a packed copy kept in float32; with more rows, packing is a small part of the time. */
const float32Rows = { from: 5, to: 255 };

/**
 * Keeps the packed form of frozen weights, from their second use on. A weight is identified by its dataId, which changes
 * whenever a variable is assigned to, so weights in training are not kept.
 */
export class PackedWeights {
  /** By dataId, then by `slot`. */
  private readonly entries = new Map<object, (Entry | undefined)[]>();
  /** Bytes of all packed weights. */
  bytes = 0;

  /** @param limit bytes; no copy is kept beyond it, or if less than half of it would remain free on the machine */
  constructor(
    private readonly addon: NativeAddon,
    private readonly pool: BufferPool,
    private readonly limit: number,
  ) {}

  clear(): void {
    for (const dataId of [...this.entries.keys()]) this.drop(dataId);
  }

  /** The packed form of b [K, N] for a matmul with M rows, made if it pays; else undefined. */
  find(
    dataId: object,
    values: Float32Array,
    transposed: boolean,
    { M, N, K }: { M: number; N: number; K: number },
    precision: Precision,
  ): Float32Array | undefined {
    const few = M >= float32Rows.from && M <= float32Rows.to;
    if (values.length < smallest || !(few || precision !== 'float32')) return undefined;
    let slots = this.entries.get(dataId);
    if (!slots) this.entries.set(dataId, (slots = []));
    const entry = (slots[slot(transposed, precision)] ??= { uses: 0 });
    if (++entry.uses > 1 && !entry.packed) entry.packed = this.packed(values, transposed, N, K, precision);
    return entry.packed;
  }

  private packed(
    values: Float32Array,
    transposed: boolean,
    N: number,
    K: number,
    precision: Precision,
  ): Float32Array | undefined {
    const length = this.addon.packedLength(N, K, precision);
    const bytes = length * 4;
    if (this.bytes + bytes > this.limit || process.availableMemory() - bytes < this.limit / 2)
      return undefined;
    const packed = this.pool.floats(length);
    this.pool.retain(packed.buffer);
    this.addon.pack(values, transposed, packed, N, K, precision);
    this.bytes += packed.byteLength;
    return packed;
  }

  /** Frees the packed forms of data that is gone. */
  drop(dataId: object): void {
    const slots = this.entries.get(dataId) ?? [];
    this.entries.delete(dataId);
    for (const entry of slots) {
      if (!entry?.packed) continue;
      this.bytes -= entry.packed.byteLength;
      this.pool.release(entry.packed.buffer);
    }
  }
}

function slot(transposed: boolean, precision: Precision): number {
  return (transposed ? 1 : 0) + (precision === 'float32' ? 0 : 2);
}

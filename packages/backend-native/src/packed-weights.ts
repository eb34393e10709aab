import type { NativeAddon, Precision } from './addon';
import type { BufferPool } from './buffer-pool';

/** One orientation of one weight. */
interface Entry {
  uses: number;
  packed?: Float32Array;
}

/** Packing a smaller weight takes no time worth saving. */
const smallest = 4096;
/** In float32, more rows than these hide the packing, and a second copy of every weight is a high price. */
const float32Rows = { from: 5, to: 255 };

/**
 * Keeps the packed form of weights that are used again unchanged: frozen ones, from their second use on. A weight is
 * known by its dataId, which tfjs renews whenever a variable is assigned to.
 */
export class PackedWeights {
  private readonly entries = new Map<object, { plain: Entry; transposed: Entry }>();
  private precision: Precision = 'float32';
  /** What is held now. */
  bytes = 0;

  /** @param limit bytes; what lies beyond it, or would leave less than half of it free, is packed at every use */
  constructor(
    private readonly addon: NativeAddon,
    private readonly pool: BufferPool,
    private readonly limit: number,
  ) {}

  setPrecision(precision: Precision): void {
    this.addon.setPrecision(precision);
    this.precision = precision;
    for (const dataId of [...this.entries.keys()]) this.drop(dataId);
  }

  /** The packed form of b [K, N] for a product with M rows, if it is there or now worth making. */
  find(
    dataId: object,
    values: Float32Array,
    transposed: boolean,
    { M, N, K }: { M: number; N: number; K: number },
  ): Float32Array | undefined {
    const few = M >= float32Rows.from && M <= float32Rows.to;
    if (values.length < smallest || !(few || this.precision === 'bfloat16')) return undefined;
    let both = this.entries.get(dataId);
    if (!both) this.entries.set(dataId, (both = { plain: { uses: 0 }, transposed: { uses: 0 } }));
    const entry = transposed ? both.transposed : both.plain;
    if (++entry.uses > 1 && !entry.packed) this.pack(entry, values, transposed, N, K);
    return entry.packed;
  }

  private pack(entry: Entry, values: Float32Array, transposed: boolean, N: number, K: number): void {
    const length = this.addon.packedLength(N, K);
    const bytes = length * 4;
    if (this.bytes + bytes > this.limit || process.availableMemory() - bytes < this.limit / 2) return;
    const packed = this.pool.floats(length);
    this.pool.retain(packed.buffer);
    this.addon.pack(values, transposed, packed, N, K);
    this.bytes += packed.byteLength;
    entry.packed = packed;
  }

  /** The data is gone. */
  drop(dataId: object): void {
    const both = this.entries.get(dataId);
    if (!both) return;
    this.entries.delete(dataId);
    for (const { packed } of [both.plain, both.transposed]) {
      if (!packed) continue;
      this.bytes -= packed.byteLength;
      this.pool.release(packed.buffer);
    }
  }
}

import type { Precision } from '@blip2/nn';
import type { NativeAddon } from './addon';
import type { BufferPool } from './buffer-pool';

/** One orientation of one weight in one precision. */
interface Entry {
  uses: number;
  packed?: Float32Array;
}

/** Packing a smaller weight is too fast to be worth saving. */
const smallest = 4096;
/** In float32, packing costs little beside more rows than these, and does not justify a second copy of every weight. */
const float32Rows = { from: 5, to: 255 };

/**
 * Keeps the packed form of weights that are used again unchanged: frozen ones, from their second use on. A weight is
 * known by its dataId, which tfjs renews whenever a variable is assigned to.
 */
export class PackedWeights {
  /** Of each weight, by `slot`. */
  private readonly entries = new Map<object, (Entry | undefined)[]>();
  /** What is held now. */
  bytes = 0;

  /** @param limit bytes; weights beyond it, or that would leave less than half of it free, are packed at every use */
  constructor(
    private readonly addon: NativeAddon,
    private readonly pool: BufferPool,
    private readonly limit: number,
  ) {}

  clear(): void {
    for (const dataId of [...this.entries.keys()]) this.drop(dataId);
  }

  /** The packed form of b [K, N] for a matmul with M rows, if there is one or it is now worth making. */
  find(
    dataId: object,
    values: Float32Array,
    transposed: boolean,
    { M, N, K }: { M: number; N: number; K: number },
    precision: Precision,
  ): Float32Array | undefined {
    const few = M >= float32Rows.from && M <= float32Rows.to;
    if (values.length < smallest || !(few || precision === 'bfloat16')) return undefined;
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

  /** The data is gone. */
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
  return (transposed ? 1 : 0) + (precision === 'bfloat16' ? 2 : 0);
}

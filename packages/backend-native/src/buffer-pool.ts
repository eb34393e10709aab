/** Arrays of fewer elements are not pooled, since that costs more than it saves. */
const smallest = 1024;

interface SizeClass {
  free: ArrayBuffer[];
  lastUse: number;
}

/**
 * Reuses the memory of disposed tensors: the first write to new memory takes several times as long as a light kernel.
 * Only buffers from this pool are reused, and only when no tensor refers to them any more. Uses are counted per
 * ArrayBuffer, because some tfjs kernels make views of their input.
 */
export class BufferPool {
  private readonly uses = new Map<ArrayBufferLike, number>();
  private readonly classes = new Map<number, SizeClass>();
  private clock = 0;
  private liveBytes = 0;
  private peakBytes = 0;
  private freeBytes = 0;

  /** An uninitialised array. The caller owns it until the first `retain`; the last `release` returns it to the pool. */
  floats(length: number): Float32Array {
    if (length < smallest) return new Float32Array(length);
    return new Float32Array(this.take(sizeClass(length * 4)), 0, length);
  }

  /** Like `floats`, for bytes. */
  bytes(length: number): Uint8Array {
    if (length < 4 * smallest) return new Uint8Array(length);
    return new Uint8Array(this.take(sizeClass(length)), 0, length);
  }

  private take(bytes: number): ArrayBuffer {
    const group = this.classes.get(bytes);
    if (group) group.lastUse = ++this.clock;
    let buffer = group?.free.pop();
    if (buffer) this.freeBytes -= bytes;
    else buffer = new ArrayBuffer(bytes);
    this.uses.set(buffer, 0);
    this.liveBytes += bytes;
    this.peakBytes = Math.max(this.peakBytes, this.liveBytes);
    return buffer;
  }

  /** Call when a tensor begins to refer to this buffer. */
  retain(buffer: ArrayBufferLike): void {
    const uses = this.uses.get(buffer);
    if (uses !== undefined) this.uses.set(buffer, uses + 1);
  }

  /** Call when a tensor that referred to this buffer is gone. */
  release(buffer: ArrayBufferLike): void {
    const uses = this.uses.get(buffer);
    if (uses === undefined) return;
    if (uses > 1) {
      this.uses.set(buffer, uses - 1);
      return;
    }
    this.uses.delete(buffer);
    this.liveBytes -= buffer.byteLength;
    this.give(buffer as ArrayBuffer);
  }

  owns(buffer: ArrayBufferLike): boolean {
    return this.uses.has(buffer);
  }

  memory(): { liveBytes: number; freeBytes: number; peakBytes: number } {
    return { liveBytes: this.liveBytes, freeBytes: this.freeBytes, peakBytes: this.peakBytes };
  }

  /** Counts the peak from now on, and drops what is more than that peak allows. */
  restartPeak(): void {
    this.peakBytes = this.liveBytes;
    this.dropSurplus();
  }

  private give(buffer: ArrayBuffer): void {
    const bytes = buffer.byteLength;
    let group = this.classes.get(bytes);
    if (!group) this.classes.set(bytes, (group = { free: [], lastUse: 0 }));
    group.lastUse = ++this.clock;
    group.free.push(buffer);
    this.freeBytes += bytes;
    this.dropSurplus();
  }

  private dropSurplus(): void {
    while (this.liveBytes + this.freeBytes > this.peakBytes * 1.25 + (64 << 20)) this.dropOldest();
  }

  private dropOldest(): void {
    let oldest: SizeClass | undefined;
    for (const group of this.classes.values())
      if (group.free.length > 0 && (!oldest || group.lastUse < oldest.lastUse)) oldest = group;
    const buffer = oldest?.free.pop();
    if (!buffer) return;
    this.freeBytes -= buffer.byteLength;
  }
}

/** Rounds up to the next of eight steps per power of two, so that at most an eighth is wasted. */
export function sizeClass(bytes: number): number {
  const step = 2 ** Math.max(12, Math.floor(Math.log2(bytes)) - 3);
  return Math.ceil(bytes / step) * step;
}

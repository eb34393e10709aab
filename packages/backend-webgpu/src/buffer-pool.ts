/// <reference types="@webgpu/types" />
/** GPU buffers that are reused. Takes the place of tfjs's BufferManager, which pools by exact size and never shrinks. */

/** Free buffers beyond this many bytes, or beyond a quarter of those in use, are destroyed. */
const KEPT = 128 << 20;

/** Sizes are rounded up to eight steps between powers of two, so that batches of other lengths reuse buffers. */
export function bucketOf(bytes: number): number {
  const step = Math.max(256, 2 ** (Math.floor(Math.log2(Math.max(1, bytes))) - 3));
  return Math.max(256, Math.ceil(bytes / step) * step);
}

export class BufferPool {
  private readonly free = new Map<string, GPUBuffer[]>();
  private readonly held = new Set<GPUBuffer>();
  private freeBytes = 0;
  /** Bytes of buffers in use, and of these and free ones. */
  numBytesUsed = 0;
  /** The most bytes in use at once since `restartPeak`. */
  numBytesPeak = 0;

  constructor(private readonly device: GPUDevice) {}

  get numBytesAllocated(): number {
    return this.numBytesUsed + this.freeBytes;
  }

  /** Buffers in use, and free ones. */
  get counts(): { used: number; free: number } {
    return { used: this.held.size, free: [...this.free.values()].reduce((n, list) => n + list.length, 0) };
  }

  restartPeak(): void {
    this.numBytesPeak = this.numBytesUsed;
  }

  /** With `mappedAtCreation`, a new buffer is mapped and a reused one is not. */
  acquireBuffer(bytes: number, usage: number, mappedAtCreation = false, reuse = true): GPUBuffer {
    const size = bucketOf(bytes);
    const known = reuse ? this.free.get(keyOf(size, usage))?.pop() : undefined;
    if (known) this.freeBytes -= size;
    const buffer = known ?? this.made(size, usage, mappedAtCreation);
    this.held.add(buffer);
    this.numBytesUsed += size;
    this.numBytesPeak = Math.max(this.numBytesPeak, this.numBytesUsed);
    return buffer;
  }

  /** @throws Error if there is no memory for a mapped buffer; for others, the device reports it later */
  private made(size: number, usage: number, mappedAtCreation: boolean): GPUBuffer {
    try {
      return this.device.createBuffer({ size, usage, mappedAtCreation });
    } catch (error) {
      const { message } = error as Error;
      throw new Error(
        `webgpu: expected memory for a buffer of ${size} bytes, found none (${message.split('\n')[0]})`,
      );
    }
  }

  releaseBuffer(buffer: GPUBuffer, reuse = true): void {
    if (!this.held.delete(buffer)) return;
    this.numBytesUsed -= buffer.size;
    if (!reuse || this.freeBytes + buffer.size > Math.max(KEPT, this.numBytesUsed / 4))
      return buffer.destroy();
    const key = keyOf(buffer.size, buffer.usage);
    const list = this.free.get(key);
    if (list) list.push(buffer);
    else this.free.set(key, [buffer]);
    this.freeBytes += buffer.size;
  }

  /** Destroys the free buffers. */
  trim(): void {
    for (const list of this.free.values()) for (const buffer of list) buffer.destroy();
    this.free.clear();
    this.freeBytes = 0;
  }

  dispose(): void {
    this.trim();
    for (const buffer of this.held) buffer.destroy();
    this.held.clear();
    this.numBytesUsed = 0;
  }
}

const keyOf = (size: number, usage: number) => `${size} ${usage}`;

/// <reference types="@webgpu/types" />
/** GPU buffers that are reused. Takes the place of tfjs's BufferManager, which pools by exact size and never shrinks. */

/** So many bytes are always kept. */
const KEPT = 64 << 20;
/** The share of the most bytes in use that buffers of other sizes may take beside them. */
const SPARE = 1 / 16;

/** Sizes are rounded up to eight steps between powers of two, so that batches of other lengths reuse buffers. */
export function bucketOf(bytes: number): number {
  const step = Math.max(256, 2 ** (Math.floor(Math.log2(Math.max(1, bytes))) - 3));
  return Math.max(256, Math.ceil(bytes / step) * step);
}

export class BufferPool {
  private readonly free = new Map<string, GPUBuffer[]>();
  /** All free buffers, the one that was freed first at the beginning. */
  private readonly inOrder = new Set<GPUBuffer>();
  private readonly held = new Set<GPUBuffer>();
  private freeBytes = 0;
  /** Not kept, but perhaps used by commands that are not submitted yet. */
  private dropped: GPUBuffer[] = [];
  droppedBytes = 0;
  /** Bytes of buffers in use, and of these and free ones. */
  numBytesUsed = 0;
  /** The most bytes in use at once since `restartPeak`, and ever. */
  numBytesPeak = 0;
  private most = 0;

  constructor(private readonly device: GPUDevice) {}

  get numBytesAllocated(): number {
    return this.numBytesUsed + this.freeBytes + this.droppedBytes;
  }

  /** Buffers in use, and free ones. */
  get counts(): { used: number; free: number } {
    return { used: this.held.size, free: this.inOrder.size };
  }

  restartPeak(): void {
    this.numBytesPeak = this.numBytesUsed;
  }

  /** With `mappedAtCreation`, a new buffer is mapped and a reused one is not. */
  acquireBuffer(bytes: number, usage: number, mappedAtCreation = false, reuse = true): GPUBuffer {
    const size = bucketOf(bytes);
    const known = reuse ? this.free.get(keyOf(size, usage))?.pop() : undefined;
    if (known) this.freed(known, -1);
    const buffer = known ?? this.made(size, usage, mappedAtCreation);
    this.held.add(buffer);
    this.numBytesUsed += size;
    this.numBytesPeak = Math.max(this.numBytesPeak, this.numBytesUsed);
    this.most = Math.max(this.most, this.numBytesUsed);
    this.shrink();
    return buffer;
  }

  /** Counts a free buffer in (1) or out (-1). */
  private freed(buffer: GPUBuffer, change: 1 | -1): void {
    this.freeBytes += change * buffer.size;
    if (change > 0) this.inOrder.add(buffer);
    else this.inOrder.delete(buffer);
  }

  /** Drops free buffers so that, with those in use, there are hardly more bytes than a training step needs at once. */
  private shrink(): void {
    const most = Math.max(KEPT, this.most * (1 + SPARE));
    for (const buffer of this.inOrder) {
      if (this.numBytesUsed + this.freeBytes <= most) return;
      this.free.get(keyOf(buffer.size, buffer.usage))!.shift(); // the oldest of its size
      this.freed(buffer, -1);
      this.drop(buffer);
    }
  }

  private drop(buffer: GPUBuffer): void {
    this.dropped.push(buffer);
    this.droppedBytes += buffer.size;
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

  /** A buffer may be used again at once, since commands run in their order. */
  releaseBuffer(buffer: GPUBuffer, reuse = true): void {
    if (!this.held.delete(buffer)) return;
    this.numBytesUsed -= buffer.size;
    if (!reuse) return this.drop(buffer);
    const key = keyOf(buffer.size, buffer.usage);
    const list = this.free.get(key);
    if (list) list.push(buffer);
    else this.free.set(key, [buffer]);
    this.freed(buffer, 1);
    this.shrink();
  }

  /** All recorded commands were submitted. */
  submitted(): void {
    for (const buffer of this.dropped) buffer.destroy();
    this.dropped = [];
    this.droppedBytes = 0;
  }

  /** Destroys the free buffers. */
  trim(): void {
    for (const buffer of this.inOrder) buffer.destroy();
    this.free.clear();
    this.inOrder.clear();
    this.freeBytes = 0;
  }

  dispose(): void {
    this.submitted();
    this.trim();
    for (const buffer of this.held) buffer.destroy();
    this.held.clear();
    this.numBytesUsed = 0;
  }
}

const keyOf = (size: number, usage: number) => `${size} ${usage}`;

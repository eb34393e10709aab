/** Buffers with constant contents, such as indices. A training step uses the same ones again and again. */

/** Buffers that are kept, and their bytes. */
const MOST = 2048;
const MOST_BYTES = 64 << 20;

export class Constants {
  /** By contents, the least recently used first. */
  private readonly known = new Map<string, GPUBuffer>();
  private bytes = 0;
  /** Dropped, but perhaps read by commands that are not submitted yet. */
  private dropped: GPUBuffer[] = [];
  droppedBytes = 0;

  constructor(private readonly device: GPUDevice) {}

  find(bytes: ArrayBuffer, usage: number): GPUBuffer {
    const key = `${usage} ${new Uint32Array(bytes).join()}`;
    const buffer = this.known.get(key) ?? this.make(bytes, usage);
    this.known.delete(key);
    this.known.set(key, buffer);
    while (this.known.size > MOST || (this.bytes > MOST_BYTES && this.known.size > 1)) this.dropOldest();
    return buffer;
  }

  private make(bytes: ArrayBuffer, usage: number): GPUBuffer {
    const size = Math.max(16, bytes.byteLength);
    const buffer = this.device.createBuffer({ size, usage, mappedAtCreation: true });
    new Uint8Array(buffer.getMappedRange()).set(new Uint8Array(bytes));
    buffer.unmap();
    this.bytes += size;
    return buffer;
  }

  /** Destroys a buffer when all recorded commands were submitted. */
  drop(buffer: GPUBuffer): void {
    this.dropped.push(buffer);
    this.droppedBytes += buffer.size;
  }

  private dropOldest(): void {
    const [key, buffer] = this.known.entries().next().value!;
    this.known.delete(key);
    this.bytes -= buffer.size;
    this.drop(buffer);
  }

  /** All recorded commands were submitted. */
  submitted(): void {
    for (const buffer of this.dropped) buffer.destroy();
    this.dropped = [];
    this.droppedBytes = 0;
  }
}

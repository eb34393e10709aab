/// <reference types="@webgpu/types" />
/** The uniforms of the commands that are recorded, in a few buffers that are written when these are submitted, and then used again. */

/** Bytes of a uniform, the alignment that every GPU has, and of a buffer. */
const SLOT = 256;
const PAGE = 64 << 10;

export class Uniforms {
  private readonly pages: { buffer: GPUBuffer; bytes: Uint8Array }[] = [];
  private slots = 0;

  constructor(private readonly device: GPUDevice) {}

  /** Where the bytes will be, at most 256. */
  add(bytes: ArrayBuffer): GPUBufferBinding {
    const at = this.slots++ * SLOT;
    const page = (this.pages[Math.floor(at / PAGE)] ??= this.page());
    const offset = at % PAGE;
    page.bytes.set(new Uint8Array(bytes), offset);
    return { buffer: page.buffer, offset, size: bytes.byteLength };
  }

  private page() {
    const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST;
    return { buffer: this.device.createBuffer({ size: PAGE, usage }), bytes: new Uint8Array(PAGE) };
  }

  /** Call it before the commands are submitted: the queue writes after what was submitted before. */
  write(): void {
    for (const [i, { buffer, bytes }] of this.pages.entries()) {
      const used = Math.min(PAGE, this.slots * SLOT - i * PAGE);
      if (used > 0) this.device.queue.writeBuffer(buffer, 0, bytes, 0, used);
    }
    this.slots = 0;
  }
}

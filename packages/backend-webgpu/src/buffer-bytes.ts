/// <reference types="@webgpu/types" />

/** Bytes of all buffers of a device that are not destroyed. */
export interface BufferBytes {
  now: number;
  /** The most at once; a program may set it to `now`. */
  peak: number;
}

/** Counts the buffers that a device makes from now on. */
export function countBuffers(device: GPUDevice): BufferBytes {
  const bytes = { now: 0, peak: 0 };
  const create = device.createBuffer.bind(device);
  device.createBuffer = (descriptor) => {
    const buffer = create(descriptor);
    const { size } = descriptor;
    const destroy = buffer.destroy.bind(buffer);
    let exists = true;
    bytes.now += size;
    bytes.peak = Math.max(bytes.peak, bytes.now);
    buffer.destroy = () => {
      if (exists) bytes.now -= size;
      exists = false;
      return destroy();
    };
    return buffer;
  };
  return bytes;
}

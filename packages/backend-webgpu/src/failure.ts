/** Errors of the GPU arrive later than the commands that cause them; they are kept and thrown at the next read. */
import { adapterName } from './device';
import type { Adapter } from './device';

/** The first error of a device from now on. Work can go on after one for lack of memory, so that one is thrown only once. */
export function failureOf(device: GPUDevice, adapter: Adapter): { check(): void; end(): void } {
  let message: string | undefined;
  let passing = false;
  let ended = false;
  const name = adapterName(adapter);
  const report = (error: GPUError) => {
    if (message) return;
    passing = error.constructor.name === 'GPUOutOfMemoryError';
    message = passing
      ? `webgpu: ${name} is out of memory (${firstLine(error.message)}); use a smaller batch, gradient checkpointing or ` +
        'shorter texts, or the backend native'
      : `webgpu: ${name}: ${firstLine(error.message)}`;
  };
  device.addEventListener('uncapturederror', (event) => {
    event.preventDefault(); // it would be printed
    report((event as GPUUncapturedErrorEvent).error);
  });
  void device.lost.then(({ reason, message: why }) => {
    if (ended) return;
    passing = false;
    message = `webgpu: the connection to ${name} was lost (${firstLine(why) || reason}); saved checkpoints are intact: start again, with --resume for a training`;
  });
  return {
    check() {
      if (!message) return;
      const error = new Error(message);
      if (passing) message = undefined;
      throw error;
    },
    end() {
      ended = true;
    },
  };
}

const firstLine = (text: string) => text.trim().split('\n')[0]!;

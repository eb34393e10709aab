/** What the page writes about its work. */
import type { Opened } from './messages';

const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1);

export function loadingLine({ loaded, total }: { loaded: number; total: number }): string {
  return total === 0 ? 'Starting …' : `Loading the model: ${megabytes(loaded)} of ${megabytes(total)} MB`;
}

/** What computes, and that it is slow where it is. */
export function backendLine({ backend, why, missing }: Opened): string {
  if (backend === 'webgpu') return `Ready. It computes by WebGPU: ${why}.`;
  const reason = missing === undefined ? '' : ` WebGPU, which is faster, cannot be used: ${missing}.`;
  return `Ready. It computes on your processor: ${why}. That is slower than a GPU.${reason}`;
}

export function runLine(steps: number, of: number, seconds: number): string {
  const each = seconds / Math.max(1, steps);
  const left = Math.ceil((of - steps) * each);
  return `Step ${steps} of ${of}, ${each.toFixed(2)} s each${steps < of ? `, ${left} s left` : ''}`;
}

import { describe, expect, it } from 'vitest';
import { bucketOf, BufferPool } from './buffer-pool';

/** Counts the buffers that exist. */
function fake() {
  const made = { alive: 0 };
  const createBuffer = ({ size, usage }: GPUBufferDescriptor) => {
    made.alive++;
    return { size, usage, destroy: () => void made.alive-- };
  };
  return { made, pool: new BufferPool({ createBuffer } as unknown as GPUDevice) };
}

describe('the pool of buffers', () => {
  it('rounds sizes up by at most an eighth, and never below 256', () => {
    expect(bucketOf(1)).toBe(256);
    for (const bytes of [257, 1000, 4097, 1e6, 123456789]) {
      expect(bucketOf(bytes)).toBeGreaterThanOrEqual(bytes);
      if (bytes > 2048) expect(bucketOf(bytes)).toBeLessThanOrEqual(bytes * 1.125 + 1);
      expect(bucketOf(bytes) % 4).toBe(0);
    }
  });
  it('reuses a buffer of a similar size and the same usage', () => {
    const { made, pool } = fake();
    pool.releaseBuffer(pool.acquireBuffer(100_000, 1));
    pool.acquireBuffer(100_100, 1);
    expect(made.alive).toBe(1);
    pool.acquireBuffer(100_000, 2);
    expect(made.alive).toBe(2);
    expect(pool.counts).toEqual({ used: 2, free: 0 });
  });
  it('keeps free buffers up to a quarter of those in use, and 128 MiB when none is', () => {
    const { made, pool } = fake();
    const buffers = Array.from({ length: 20 }, () => pool.acquireBuffer(100 << 20, 1));
    expect(pool.numBytesPeak).toBeGreaterThanOrEqual(2000 << 20);
    for (const buffer of buffers) pool.releaseBuffer(buffer);
    expect(pool.numBytesUsed).toBe(0);
    expect(pool.numBytesAllocated).toBeLessThan(501 << 20);
    pool.trim();
    expect(made.alive).toBe(0);
    pool.releaseBuffer(pool.acquireBuffer(200 << 20, 1));
    expect(made.alive).toBe(0);
  });
});

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
  it('keeps what was in use at once, and drops the buffers that were freed first when others need the room', () => {
    const { made, pool } = fake();
    const mib = (n: number) => n << 20;
    const buffers = Array.from({ length: 20 }, () => pool.acquireBuffer(mib(100), 1));
    expect(pool.numBytesPeak).toBeGreaterThanOrEqual(mib(1000));
    const most = pool.numBytesUsed;
    for (const buffer of buffers) pool.releaseBuffer(buffer);
    expect([pool.numBytesUsed, pool.numBytesAllocated, made.alive]).toEqual([0, most, 20]);
    for (let i = 0; i < 20; i++) pool.acquireBuffer(mib(100), 1);
    expect(made.alive).toBe(20);
    for (const buffer of buffers.slice(0, 10)) pool.releaseBuffer(buffer);
    for (let i = 0; i < 5; i++) pool.acquireBuffer(mib(200), 1);
    expect(pool.numBytesUsed + pool.droppedBytes).toBeGreaterThan(most);
    pool.submitted();
    expect(pool.numBytesAllocated).toBeLessThan(most * 1.07);
    expect(made.alive).toBeLessThan(20);
    pool.dispose();
    expect([made.alive, pool.numBytesAllocated]).toEqual([0, 0]);
  });
  it('destroys what it drops after the commands were submitted', () => {
    const { made, pool } = fake();
    pool.releaseBuffer(pool.acquireBuffer(100, 1), false);
    expect(made.alive).toBe(1);
    pool.submitted();
    expect(made.alive).toBe(0);
  });
});

import type * as promises from 'node:fs/promises';
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { readImage } from './image-source';

vi.mock('node:fs/promises', async (original) => {
  const actual = await original<typeof promises>();
  return { ...actual, open: vi.fn(actual.open) };
});

let root: string;
let file: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'images-'));
  file = join(root, 'a.png');
  await writeFile(file, 'pixels');
});
afterAll(() => rm(root, { recursive: true }));

/** Opening a file fails so many times. */
function fail(name: keyof typeof constants.errno, times: number): void {
  const error = Object.assign(new Error(`${name}: i/o error, open`), { errno: -constants.errno[name] });
  vi.mocked(open).mockClear();
  for (let i = 0; i < times; i++) vi.mocked(open).mockRejectedValueOnce(error);
}

describe('readImage', () => {
  it.each(['EIO', 'ESTALE', 'EAGAIN'] as const)('tries again once after %s', async (name) => {
    fail(name, 1);
    expect(Buffer.from(await readImage(file)).toString()).toBe('pixels');
    fail(name, 2);
    await expect(readImage(file)).rejects.toThrow(
      `${file}: the image cannot be read (${name}: i/o error, open)`,
    );
    expect(vi.mocked(open)).toHaveBeenCalledTimes(2);
  });

  it('does not wait for a file that is not there', async () => {
    vi.mocked(open).mockClear();
    await expect(readImage(join(root, 'none.png'))).rejects.toThrow(/ENOENT/);
    expect(vi.mocked(open)).toHaveBeenCalledTimes(1);
  });
});

/** Memory-mapped weights whose file becomes shorter or is rewritten while it is in use. */
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  mkdtempSync,
  renameSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { addon, loaded, numbers } from '../spec/fixtures';

const [N, K] = [512, 1024];
const name = loaded.addon ? 'a mapped file' : `a mapped file (SKIPPED: ${loaded.why})`;

describe.skipIf(!loaded.addon)(name, () => {
  let folder: string, file: string;
  const values = numbers(N * K, 1);
  const [x, y] = [numbers(64 * K, 2), new Float32Array(64 * N)];
  const open = (path: string) =>
    addon.storeWeight('F32', N, K, [{ file: path, begin: 0, bytes: 4 * N * K }], false);
  const multiply = (weight: ReturnType<typeof open>) =>
    addon.timesWeight(x, weight, true, null, 'none', null, y, 64, N, K);

  beforeAll(() => void (folder = mkdtempSync(join(tmpdir(), 'blip2-mapped-'))));
  afterAll(() => rmSync(folder, { recursive: true }));
  beforeEach(({ task }) => {
    file = join(folder, task.id);
    writeFileSync(file, values);
    addon.setThreads(2);
  });

  it('that becomes shorter is named in an exception, at once and at every later use; other files still work', () => {
    const other = join(folder, 'other');
    copyFileSync(file, other);
    const [weight, intact] = [open(file), open(other)];
    multiply(intact);
    const expected = y.slice();
    truncateSync(file, 8192);
    const refused = `${file}: expected ${4 * N * K} bytes of weights, the file became shorter`;
    for (let i = 0; i < 2; i++) expect(() => multiply(weight)).toThrow(refused);
    expect(() => addon.storedFloats(weight, new Float32Array(N * K))).toThrow(refused);
    expect(() => addon.storedRows(weight, Int32Array.of(0), new Float32Array(K))).toThrow(refused);
    multiply(intact);
    expect(y).toEqual(expected);
    addon.releaseStored(weight);
    writeFileSync(file, values); // restored: opening it again gives the right values
    const restored = open(file);
    multiply(restored);
    expect(y).toEqual(expected);
    for (const used of [restored, intact]) addon.releaseStored(used);
  });

  it('that becomes shorter while it is opened is named too', () => {
    truncateSync(file, 4 * N * K - 1);
    expect(() => open(file)).toThrow('(truncated?)');
  });

  it('that is rewritten is named by checkFiles; one that is replaced by a new file keeps its content', () => {
    const weight = open(file);
    addon.checkFiles();
    const replacement = `${file}.new`;
    writeFileSync(replacement, new Float32Array(N * K));
    renameSync(replacement, file);
    addon.checkFiles();
    const replaced = open(file);
    addon.checkFiles();
    writeFileSync(file, values);
    utimesSync(file, 1, 1);
    expect(() => addon.checkFiles()).toThrow(
      `${file}: expected the weights that were opened, the file was changed`,
    );
    for (const used of [weight, replaced]) addon.releaseStored(used);
    addon.checkFiles();
  });

  it.skipIf(process.platform === 'win32')('does not change what another SIGBUS does', () => {
    const script = `
      const addon = require(process.argv[1]);
      const span = { file: process.argv[2], begin: 0, bytes: ${4 * N * K} };
      globalThis.weight = addon.storeWeight('F32', ${N}, ${K}, [span], false);
      process.kill(process.pid, 'SIGBUS');
      setTimeout(() => console.log('still here'), 5000);`;
    const native =
      process.env.BLIP2_NATIVE_ADDON ?? fileURLToPath(new URL('../build/blip2_native.node', import.meta.url));
    const { signal, stdout } = spawnSync(process.execPath, ['-e', script, native, file], {
      encoding: 'utf8',
    });
    expect(stdout).toBe('');
    expect(signal).toBe('SIGBUS');
  });
});

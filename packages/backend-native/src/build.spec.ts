/** The output of the install script, with a fake compiler. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const COMPILER = `#!/bin/sh
case "$*" in
  *--version*) echo fake 1 ;;
  *-fsyntax-only*) exit 1 ;;
  *-shared*) echo 'ld: error: an object is missing' >&2; exit 1 ;;
  */native/stored.cc*) sleep 0.2; echo 'stored.cc:1: error: wrong' >&2; exit 1 ;;
  */native/thread_pool.cc*) sleep 0.6 ;;
esac
`;

it.skipIf(process.platform === 'win32' || availableParallelism() < 2)(
  'names the file that did not compile, although another one compiled after it',
  () => {
    const folder = mkdtempSync(join(tmpdir(), 'blip2-compiler-'));
    const compiler = join(folder, 'c++');
    writeFileSync(compiler, COMPILER, { mode: 0o755 });
    const script = fileURLToPath(new URL('../build.mjs', import.meta.url));
    const env = { ...process.env, CXX: compiler };
    const { status, stdout } = spawnSync(process.execPath, [script, '--force'], { env, encoding: 'utf8' });
    expect(stdout).toContain('not built (stored.cc:1: error: wrong)');
    expect(status).toBe(0);
    rmSync(folder, { recursive: true });
  },
);

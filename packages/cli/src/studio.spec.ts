import { existsSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { cli } from '../spec/testing';

const folder = () => mkdtemp(join(tmpdir(), 'studio-'));

/** Starts studio, calls `use` with its address, and stops it as Ctrl-C does. */
async function serving(argv: string[], use: (url: string) => Promise<void>) {
  let interrupt = () => {};
  let used: Promise<void> | undefined;
  return cli(['studio', '--json', ...argv], {
    onInterrupt: (callback) => {
      interrupt = callback;
      return () => undefined;
    },
    stdout: (text) => {
      const { url } = JSON.parse(text) as { url: string };
      used = use(url);
      void used.finally(() => interrupt());
    },
  }).then(async (ran) => (await used, ran));
}

it('serves on this machine until Ctrl-C, and names a port that is taken', async () => {
  const dir = await folder();
  const argv = ['--folder', dir, '--runs', join(dir, 'runs')];
  const { code } = await serving([...argv, '--port', '0'], async (url) => {
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/\?session=[\w-]{20,}$/);
    expect((await fetch(new URL('/api/studio', url))).status).toBe(401);
    const { port } = new URL(url);
    const second = await cli(['studio', ...argv, '--port', port]);
    expect(second.code).toBe(1);
    expect(second.err).toContain(`port ${port}: expected a free port, found one in use`);
  });
  expect(code).toBe(0);
});

it('refuses runs outside of its folders, and ports that are none', async () => {
  const [dir, other] = [await folder(), await folder()];
  const outside = await cli(['studio', '--folder', dir, '--runs', join(other, 'runs'), '--port', '0']);
  expect(outside.code).toBe(1);
  expect(outside.err).toContain('is outside of the folders that may be read');
  expect(existsSync(join(other, 'runs'))).toBe(false);
  expect((await cli(['studio', '--port', '70000'])).code).toBe(2);
});

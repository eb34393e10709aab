/** `blip2 serve`: starts, answers, and ends after a signal. */
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';
import { bundle } from '../../../tsup.config';
import { cli, TINY } from '../spec/testing';
import { serveCommand } from './commands/serve';
import type { Io } from './io';
import { Ui } from './ui';

const ADAPTER = fileURLToPath(new URL('../../blip2/fixtures/tiny-adapter', import.meta.url));

describe('blip2 serve', () => {
  it('answers until it is interrupted, and lets requests finish', async () => {
    const worker = pathToFileURL(await bundle(new URL('../../captioner/src/worker.ts', import.meta.url)));
    let interrupt = (): void => undefined;
    let listening: (url: string) => void;
    const url = new Promise<string>((resolve) => (listening = resolve));
    const io = {
      ...{ stderr: () => undefined, terminal: false, columns: 80, colour: { stdout: false, stderr: false } },
      ...{ env: { BLIP2_TOKEN: 'secret' }, stdin: () => Promise.resolve(''), exit: () => undefined },
      stdout: (text: string) => listening((JSON.parse(text) as { url: string }).url),
      onInterrupt: (callback: () => void) => ((interrupt = callback), () => undefined),
    } as Io;
    const args = [
      '--model',
      TINY,
      '--adapter',
      `food=${ADAPTER}`,
      '--port',
      '0',
      '--backend',
      'cpu',
      '--json',
    ];
    const ended = serveCommand(new Ui(io, true), worker).parseAsync(args, { from: 'user' });
    const headers = { authorization: 'Bearer secret' };
    const found = await fetch(`${await url}/v1/models`, { headers });
    const { data } = (await found.json()) as { data: { id: string }[] };
    expect(data.map(({ id }) => id)).toEqual(['food', 'tiny']);
    expect((await fetch(`${await url}/v1/models`)).status).toBe(401);
    interrupt();
    await ended;
    await expect(fetch(`${await url}/healthz`)).rejects.toThrow();
  });

  it('refuses an open address without a token, an empty token and names that occur twice', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'blip2-cli-'));
    await writeFile(join(dir, 'token'), '\n');
    const cases: [string[], string][] = [
      [['--host', '0.0.0.0'], 'needs a token: --token-file FILE, or BLIP2_TOKEN'],
      [['--host', 'localhost.example'], 'needs a token: --token-file FILE, or BLIP2_TOKEN'],
      [['--token-file', join(dir, 'token')], 'token is empty'],
      [['--adapter', `a=${ADAPTER}`, '--adapter', `a=${ADAPTER}`], '"a" occurs twice'],
      [['--port', 'x'], 'Expected a whole number'],
    ];
    for (const [more, message] of cases) {
      const { code, err } = await cli(['serve', '--model', TINY, ...more]);
      expect([code, err]).toEqual([2, expect.stringContaining(message)]);
    }
    expect((await cli(['serve', '--model', '/no/such'])).code).toBe(1);
  });
});

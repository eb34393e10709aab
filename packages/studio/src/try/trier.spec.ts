import { mkdir, mkdtemp, realpath, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { openFolders } from '../folders';
import { openRuns } from '../runs';
import { once } from './kept';
import type { Kept } from './kept';
import { triedModels } from './models';
import { createTrier } from './trier';

const folder = async () => realpath(await mkdtemp(join(tmpdir(), 'studio-try-')));

/** A thread that answers with the number of its questions. */
const THREAD = `
import { parentPort } from 'node:worker_threads';
let grid = 0;
parentPort.on('message', ({ id }) => parentPort.postMessage({ id, result: { grid: ++grid, texts: [] } }));
`;

it('loads base and adapter again after their files have changed', async () => {
  const root = await folder();
  const [base, adapter] = [join(root, 'base'), join(root, 'runs', 'a', 'adapter')];
  await mkdir(base);
  await mkdir(adapter, { recursive: true });
  await writeFile(join(root, 'runs', 'a', 'config.yaml'), `model: ${base}\ndata: ${root}\n`);
  await writeFile(join(base, 'model.safetensors'), 'one');
  await writeFile(join(adapter, 'adapter_config.json'), '{}');
  await writeFile(join(adapter, 'adapter_model.safetensors'), 'one');
  const folders = await openFolders([root]);
  const runs = await openRuns(join(root, 'runs'), [], folders);
  const tried = () => triedModels(['a'], runs, folders);

  const first = await tried();
  expect(await tried()).toEqual(first);
  await writeFile(join(adapter, 'adapter_model.safetensors'), 'two');
  const resumed = await tried();
  expect(resumed[1].adapterVersion).not.toBe(first[1].adapterVersion);
  expect(resumed[0]).toEqual(first[0]);

  const program = join(root, 'thread.mjs');
  await writeFile(program, THREAD);
  const trier = createTrier(program);
  const bytes = new Uint8Array();
  const asked = async (models: typeof first) => (await trier.ask({ models, bytes })).grid;
  expect([await asked(first), await asked(resumed)]).toEqual([1, 2]);
  await writeFile(join(base, 'model.safetensors'), 'two');
  expect(await asked(await tried())).toBe(1); // in a new thread
  await trier.close();
});

it('keeps what was made of one version of a file, and no failure', async () => {
  const kept: Kept<number> = new Map();
  let made = 0;
  const get = (version: string) => once(kept, 'a', version, () => Promise.resolve(++made));
  expect([await get('x'), await get('x'), await get('y'), await get('y')]).toEqual([1, 1, 2, 2]);
  await expect(once(kept, 'a', 'z', () => Promise.reject(new Error('no')))).rejects.toThrow('no');
  expect(await get('z')).toBe(3);
  expect(kept.size).toBe(1);
});

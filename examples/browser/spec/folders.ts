/** The same work by folders, as in Node: the base, drawings, captions and training. */
import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { adapterBase, textIds } from '@blip2/blip2';
import { loadFolder } from '@blip2/blip2/node';
import { decodeImage, loadProcessor } from '@blip2/data-captions';
import { applyAdapter } from '@blip2/peft-lora';
import { loadAdapter } from '@blip2/peft-lora/node';
import { generateCaptions } from '@blip2/trainer';
import { fit } from '../src/fit';
import type { FitSettings, Trained } from '../src/fit';
import { openSession } from '../src/session';
import type { BaseFiles } from '../src/session';

export const HERE = fileURLToPath(new URL('..', import.meta.url));
export const BASE = fileURLToPath(new URL('../../../models/blip2-emoji-mini', import.meta.url));

/** What files.mjs puts into public/, in a folder of this spec: specs run at the same time. */
export async function makeFiles(): Promise<{ folder: string; drawings: string[] }> {
  const folder = await mkdtemp(join(tmpdir(), 'browser-public-'));
  await promisify(execFile)(process.execPath, [join(HERE, 'files.mjs'), folder]);
  const names = (await readdir(join(folder, 'drawings'))).filter((name) => name.endsWith('.png'));
  return { folder, drawings: names.map((name) => join(folder, 'drawings', name)) };
}

export async function baseFiles(): Promise<BaseFiles> {
  const json = async (name: string) =>
    JSON.parse(await readFile(join(BASE, name), 'utf8')) as Record<string, unknown>;
  return {
    'config.json': await json('config.json'),
    'preprocessor_config.json': await json('preprocessor_config.json'),
    'tokenizer.json': await json('tokenizer.json'),
    'tokenizer_config.json': await json('tokenizer_config.json'),
    'model.safetensors': await readFile(join(BASE, 'model.safetensors')),
  };
}

/** What `blip2 caption` prints: captions of picture files by the base, or by the base with an adapter folder. */
export async function captionsInNode(files: readonly string[], adapter?: string): Promise<string[]> {
  const base = await loadFolder(BASE);
  const processor = await loadProcessor(BASE, textIds(base.config));
  const { ties } = adapterBase(base.config);
  const params = adapter ? applyAdapter(base.params, await loadAdapter(adapter), { ties }) : base.params;
  const examples = files.map((image) => ({ image, fields: {}, source: image }));
  const options = { task: 'caption', batch_size: 8, num_beams: 1 } as const;
  return generateCaptions({ ...base, params }, processor, examples, options);
}

/** The page's training in Node, with its other settings as the page has them: losses and files. */
export async function fitInNode(
  taught: readonly (readonly [picture: string | Uint8Array, caption: string])[],
  given: Pick<FitSettings, 'preset' | 'steps'>,
): Promise<Pick<Trained, 'files'> & { losses: number[] }> {
  const session = await openSession(await baseFiles());
  const rows = taught.map(([, caption], i) => ({ image: `${i}`, caption }));
  for (const [i, [picture]] of taught.entries()) session.pictures.set(`${i}`, await decodeImage(picture));
  const losses: number[] = [];
  const onStep = (_: number, loss: number) => void losses.push(loss);
  const settings = { learning_rate: 1e-3, batch_size: 8, seed: 0, ...given };
  const { files, free } = await fit(session, rows, settings, { sample_steps: given.steps, onStep });
  free();
  return { files, losses };
}

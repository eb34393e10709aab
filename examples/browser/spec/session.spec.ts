/** Session and training of the page, in Node: compared with the packages' own way, by folders. */
import { copyFile, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { decodeImage } from '@blip2/data-captions';
import { useBackend } from '@blip2/nn/node';
import { fit as fitFolder, parseConfig } from '@blip2/trainer';
import { beforeAll, describe, expect, it } from 'vitest';
import { fit } from '../src/fit';
import type { FitSettings } from '../src/fit';
import { captions, openSession } from '../src/session';
import type { Session } from '../src/session';
import { BASE, baseFiles, captionsInNode, makeFiles } from './folders';

const SETTINGS: FitSettings = {
  preset: 'lora+qformer',
  steps: 5,
  learning_rate: 2e-3,
  batch_size: 4,
  seed: 3,
};
const captionOf = (file: string) => `my own ${basename(file, '.png')}`;

describe('the work of the page', () => {
  let session: Session;
  let files: string[];

  beforeAll(async () => {
    await useBackend('wasm');
    files = (await makeFiles()).drawings;
    session = await openSession(await baseFiles());
    for (const file of files) session.pictures.set(file, await decodeImage(file));
  });

  it('captions pictures as `blip2 caption` does', async () => {
    expect(await captions(session, files)).toEqual(await captionsInNode(files));
  });

  it('trains the same weights as `blip2 fit` with the same settings, and frees them', async () => {
    const losses: number[] = [];
    const rows = files.map((image) => ({ image, caption: captionOf(image) }));
    const run = await fit(session, rows, SETTINGS, {
      sample_steps: 5,
      onStep: (_, loss) => void losses.push(loss),
    });
    const { saved, logged } = await fitInFolder(files);
    expect(losses).toEqual(logged);
    const theirs = await readFile(join(saved, 'adapter_model.safetensors'));
    expect(theirs.equals(run.files.get('adapter_model.safetensors') as Uint8Array)).toBe(true);
    run.free();
    expect(await captions(session, files)).toEqual(await captionsInNode(files)); // the base is whole
  });

  it('refuses captions that cannot be learned, and trains afterwards', async () => {
    const [image] = files as [string];
    const hooks = { sample_steps: 1 };
    const settings = { ...SETTINGS, steps: 1 };
    await expect(fit(session, [{ image, caption: 'a </s> b' }], settings, hooks)).rejects.toThrow(
      'special token',
    );
    const run = await fit(session, [{ image, caption: 'a b' }], settings, hooks);
    expect(run.steps).toBe(1);
    run.free();
  });
});

/** The same training from a folder: the adapter's folder and the losses in its log. */
async function fitInFolder(files: string[]): Promise<{ saved: string; logged: number[] }> {
  const data = await mkdtemp(join(tmpdir(), 'browser-fit-'));
  for (const file of files) await copyFile(file, join(data, basename(file)));
  const rows = files.map((file) => JSON.stringify({ file_name: basename(file), text: captionOf(file) }));
  await writeFile(join(data, 'metadata.jsonl'), rows.join('\n') + '\n');
  const { preset, steps, learning_rate, batch_size, seed } = SETTINGS;
  const config = parseConfig({
    model: BASE,
    data,
    output_dir: join(data, 'run'),
    cache_dir: join(data, 'features'),
    backend: 'wasm',
    max_steps: steps,
    per_device_train_batch_size: batch_size,
    preset,
    learning_rate,
    seed,
    adam_beta2: 0.98,
    logging_steps: 1,
    controls: false,
  });
  const logged: number[] = [];
  const { saved } = await fitFolder(config, {
    onMetrics: ({ loss }) => void (loss !== undefined && logged.push(Number(loss))),
  });
  return { saved: saved!, logged };
}

/** The program of the thread that holds the models of "Try". */
import { parentPort } from 'node:worker_threads';
import { adapterBase, textIds } from '@blip2/blip2';
import type { Blip2 } from '@blip2/blip2';
import { loadFolder } from '@blip2/blip2/node';
import { loadProcessor } from '@blip2/data-captions';
import type { Processor } from '@blip2/data-captions';
import { useBackend } from '@blip2/nn/node';
import { applyAdapter } from '@blip2/peft-lora';
import { loadAdapter } from '@blip2/peft-lora/node';
import { resolveModel } from '@blip2/weights/node';
import { explain } from './try/explain';
import type { Kept } from './try/kept';
import { once } from './try/kept';
import type { Answer, Question } from './try/messages';

interface Opened {
  base: Blip2;
  processor: Processor;
}

const opened: Kept<Opened> = new Map();
const adapted: Kept<Blip2> = new Map();

async function open(model: string): Promise<Opened> {
  const dir = resolveModel(model);
  await useBackend('auto', { precision: 'auto' });
  const base = await loadFolder(dir);
  return { base, processor: await loadProcessor(dir, textIds(base.config)) };
}

async function withAdapter(base: Blip2, folder: string): Promise<Blip2> {
  const adapter = await loadAdapter(folder);
  return { ...base, params: applyAdapter(base.params, adapter, { ties: adapterBase(base.config).ties }) };
}

async function answer({ id, models, ...asked }: Question): Promise<Answer> {
  try {
    let grid = 0; // the same for all: they have one base
    const texts = [];
    for (const { name, model, version, adapter, adapterVersion } of models) {
      const { base, processor } = await once(opened, model, version, () => open(model));
      const { image_size, patch_size } = base.config.vision_config;
      grid = image_size / patch_size;
      const used =
        adapter === undefined
          ? base
          : await once(adapted, adapter, version + adapterVersion, () => withAdapter(base, adapter));
      texts.push(await explain(name, used, processor, asked));
    }
    return { id, result: { grid, texts } };
  } catch (error) {
    return { id, error: (error as Error).message };
  }
}

let last = Promise.resolve();
parentPort?.on('message', (question: Question) => {
  last = last.then(async () => parentPort!.postMessage(await answer(question)));
});

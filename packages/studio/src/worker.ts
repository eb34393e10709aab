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
import type { Answer, Question } from './try/messages';

interface Opened {
  base: Blip2;
  processor: Processor;
}

const opened = new Map<string, Promise<Opened>>();
const adapted = new Map<string, Promise<Blip2>>();

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

/** Remembers what was made; a failure is tried again. */
function once<T>(kept: Map<string, Promise<T>>, key: string, make: () => Promise<T>): Promise<T> {
  const made = kept.get(key) ?? make();
  kept.set(key, made);
  made.catch(() => kept.delete(key));
  return made;
}

async function answer({ id, models, ...asked }: Question): Promise<Answer> {
  try {
    const texts = [];
    for (const { name, model, adapter } of models) {
      const { base, processor } = await once(opened, model, () => open(model));
      const used =
        adapter === undefined ? base : await once(adapted, adapter, () => withAdapter(base, adapter));
      texts.push(await explain(name, used, processor, asked));
    }
    const [{ model }] = models;
    const { image_size, patch_size } = (await opened.get(model)!).base.config.vision_config;
    return { id, result: { grid: image_size / patch_size, texts } };
  } catch (error) {
    return { id, error: (error as Error).message };
  }
}

let last = Promise.resolve();
parentPort?.on('message', (question: Question) => {
  last = last.then(async () => parentPort!.postMessage(await answer(question)));
});

/** The worker of the page: holds the model and does all work, so that the page never waits. */
import { DataError } from '@blip2/data-captions';
import { cpuBackend, startBackend, wasmBackend } from '@blip2/nn';
import type { BackendProvider } from '@blip2/nn';
import { decode, PictureError } from './decode';
import { fit } from './fit';
import type { Trained } from './fit';
import { loadBase } from './load-base';
import type { BackendChoice, Calls, CallName, FromWorker, Opened, Progress, ToWorker } from './messages';
import { captions, openSession } from './session';
import type { Session } from './session';

/** The types of a page lack a worker's own. */
const send = (message: FromWorker) => self.postMessage(message);
const report = (event: Progress) => send({ event });

/** Its name. */
let backend = '';
let session: Session | undefined;
let trained: Trained | undefined;
let stopping = new AbortController();

function opened(): Session {
  if (!session) throw new Error('the model is not loaded yet');
  return session;
}

const calls: { [Name in CallName]: (args: Calls[Name]['args']) => Promise<Calls[Name]['result']> } = {
  async open({ backend: choice, folder }) {
    const found = await start(choice, folder);
    backend = found.backend;
    const files = await loadBase(`${folder}base/`, (loaded, total) =>
      report({ kind: 'loading', loaded, total }),
    );
    session = await openSession(files);
    return found;
  },
  async add({ name, file }) {
    const to = opened();
    to.pictures.set(name, await decode(file, name));
    const [base] = await captions(to, [name]);
    const now = trained && (await captions(to, [name], trained.model))[0];
    return { base: base!, now };
  },
  async remove({ name }) {
    opened().pictures.delete(name);
    opened().features.delete(name);
    return undefined;
  },
  async fit({ rows, watched, settings }) {
    trained?.free();
    trained = undefined;
    stopping = new AbortController();
    const began = performance.now();
    const seconds = () => (performance.now() - began) / 1000;
    const run = await fit(opened(), rows, settings, {
      signal: stopping.signal,
      sample_steps: 10,
      onStep: (step, loss) => report({ kind: 'step', step, loss, seconds: seconds() }),
      onSample: async (model, step) => {
        const texts = await captions(opened(), watched, model);
        report({ kind: 'captions', step, captions: watched.map((name, i) => [name, texts[i]!]) });
      },
    });
    trained = run;
    const texts = await captions(opened(), watched, run.model); // a run that was stopped made no last sample
    report({ kind: 'captions', step: run.steps, captions: watched.map((name, i) => [name, texts[i]!]) });
    const { steps, trainable } = run;
    const files = new Map([...run.files].map(([name, content]) => [name, blobOf(content)]));
    return { steps, trainable, files, seconds: seconds() };
  },
};

const blobOf = (content: string | Uint8Array) =>
  new Blob([typeof content === 'string' ? content : new Uint8Array(content)]);

/** Starts the backend; `auto` is a GPU if there is one, else wasm. */
async function start(choice: BackendChoice, folder: string): Promise<Opened> {
  const wasm = wasmBackend(`${folder}wasm/`);
  if (choice === 'cpu') return started(cpuBackend);
  if (choice === 'wasm') return started(wasm);
  try {
    return await started(await webGpu(choice === 'webgpu'));
  } catch (error) {
    if (choice === 'webgpu') throw error;
    const { backend, why } = await started(wasm);
    return { backend, why, missing: (error as Error).message.replace('startBackend: webgpu: ', '') };
  }
}

/** @param software whether an adapter that computes on the processor will do */
async function webGpu(software: boolean): Promise<BackendProvider<'webgpu'>> {
  const { gpu } = navigator;
  if (!gpu) throw new Error('this browser has no WebGPU');
  const { webGpuBackend } = await import('@blip2/backend-webgpu');
  return webGpuBackend({ gpu, software });
}

async function started(provider: BackendProvider<string>): Promise<Opened> {
  const { name, tried } = await startBackend(provider);
  return { backend: name, why: tried[0]!.why };
}

/** What to do about an error that is not of a picture or caption. */
function advice(error: unknown): string {
  const isInput = error instanceof DataError || error instanceof PictureError;
  return backend === 'webgpu' && !isInput
    ? ' Add ?backend=wasm to the address to compute on the processor.'
    : '';
}

/** Calls run one after the other. */
let last: Promise<unknown> = Promise.resolve();

self.addEventListener('message', ({ data }: MessageEvent<ToWorker>) => {
  if ('stop' in data) return stopping.abort();
  const { id, call, args } = data;
  last = last
    .then((): Promise<unknown> => calls[call](args as never))
    .then(
      (result) => send({ id, result } as FromWorker),
      (error: unknown) => send({ id, error: (error as Error).message + advice(error) }),
    );
});

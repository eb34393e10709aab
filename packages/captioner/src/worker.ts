/** The program of the worker thread; it runs where a captioner started the thread. */
import { parentPort, workerData } from 'node:worker_threads';
import type { MessagePort } from 'node:worker_threads';
import { createEngine } from './engine';
import type { FromWorker, ToWorker, WorkerData } from './messages';
import { openModel } from './open-model';

const USUAL_CACHE = 2 ** 26;

async function serve(port: MessagePort, { blip2Captioner }: WorkerData): Promise<void> {
  const send = (message: FromWorker) => port.postMessage(message);
  try {
    const opened = await openModel(blip2Captioner);
    const engine = createEngine(opened, blip2Captioner.picture_cache_bytes ?? USUAL_CACHE, send);
    port.on('message', (message: ToWorker) => engine.receive(message));
    send({ type: 'ready', info: opened.info });
    await engine.run();
  } catch (error) {
    send({ type: 'failed', message: (error as Error).message });
  }
  port.close();
}

const data = workerData as Partial<WorkerData> | null;
if (parentPort && data?.blip2Captioner) void serve(parentPort, data as WorkerData);

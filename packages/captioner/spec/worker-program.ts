/** The worker with a way to end it: a request with the prompt "crash" does. */
import { parentPort } from 'node:worker_threads';
import type { ToWorker } from '../src/messages';
import '../src/worker';

parentPort?.on('message', (message: ToWorker) => {
  if (message.type === 'request' && message.task.prompt === 'crash') throw new Error('as asked');
});

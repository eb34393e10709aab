/** The worker with ways to end it, by a request with the prompt "crash" or "exit", and to look at its memory: it answers on a channel. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { BroadcastChannel, parentPort } from 'node:worker_threads';
import { memory } from '@blip2/nn';
import type { ToWorker } from '../src/messages';
import '../src/worker';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

parentPort?.on('message', (message: ToWorker) => {
  if (message.type !== 'request') return;
  if (message.task.prompt === 'crash') throw new Error('as asked');
  if (message.task.prompt === 'exit') process.exit(3);
});

const channel = new BroadcastChannel('memory');
channel.unref();
channel.onmessage = () => void setTimeout(sendMemory, 50); // its last step has ended then

function sendMemory(): void {
  collect();
  const { heapUsed, external, arrayBuffers } = process.memoryUsage();
  channel.postMessage({
    ...{ workerHeap: heapUsed, workerExternal: external, workerBuffers: arrayBuffers },
    tensors: memory().numTensors,
  });
}

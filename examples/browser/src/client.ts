/** The page's side of the worker. */
import type { Calls, CallName, FromWorker, Progress } from './messages';

export interface Client {
  /** @throws Error with the worker's message */
  call<Name extends CallName>(name: Name, args: Calls[Name]['args']): Promise<Calls[Name]['result']>;
  /** Ends training after this step. */
  stop(): void;
}

export function startWorker(onProgress: (event: Progress) => void): Client {
  const worker = new Worker(new URL('./worker.ts', import.meta.url), { type: 'module' });
  const waiting = new Map<number, { resolve: (result: never) => void; reject: (error: Error) => void }>();
  let failure: Error | undefined;
  worker.onerror = ({ message }) => {
    failure = new Error(`the worker ended: ${message || 'it could not be loaded'}; load this page again`);
    for (const { reject } of waiting.values()) reject(failure);
    waiting.clear();
  };
  worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
    if ('event' in data) return onProgress(data.event);
    const call = waiting.get(data.id);
    waiting.delete(data.id);
    if ('error' in data) call?.reject(new Error(data.error));
    else call?.resolve(data.result as never);
  };
  let id = 0;
  return {
    call: (name, args) =>
      new Promise((resolve, reject) => {
        if (failure) return reject(failure);
        waiting.set(++id, { resolve, reject });
        worker.postMessage({ id, call: name, args });
      }),
    stop: () => worker.postMessage({ stop: true }),
  };
}

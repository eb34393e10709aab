/** Texts of models for a picture, made in a thread of its own: the server answers meanwhile, and an end of the thread is not its own. */
import { Worker } from 'node:worker_threads';
import type { TryResult } from '../api';
import type { Answer, Question, TriedModel } from './messages';

/** A picture or model that cannot be used, or too many requests; `status` is HTTP's. */
export class TryError extends Error {
  override name = 'TryError';
  constructor(
    message: string,
    readonly status: 422 | 429,
  ) {
    super(message);
  }
}

export interface Trier {
  /** @throws TryError */
  ask(question: Omit<Question, 'id'>): Promise<TryResult>;
  close(): Promise<void>;
}

const MOST_WAITING = 4;

interface Thread {
  worker: Worker;
  /** the models in its memory, with their versions */
  models: Set<string>;
  waiting: Map<number, (answer: Answer) => void>;
}

/** @param program the file of the thread */
export function createTrier(program: string): Trier {
  let thread: Thread | undefined;
  let asked = 0;
  const start = (): Thread => {
    const worker = new Worker(program);
    const started: Thread = { worker, models: new Set(), waiting: new Map() };
    worker.on('message', (answer: Answer) => started.waiting.get(answer.id)?.(answer));
    const end = (error: string) => {
      if (thread === started) thread = undefined;
      for (const [id, settle] of started.waiting) settle({ id, error });
    };
    worker.on('error', (error) => end(`the thread of the model has failed: ${error.message}`));
    worker.on('exit', (code) => end(`the thread of the model has ended (code ${code}); try again`));
    return started;
  };
  return {
    ask: async (question) => {
      // other models, or new weights: the memory of those before is freed with their thread
      if (thread && thread.waiting.size === 0 && !hasAll(thread, question.models)) {
        const old = thread.worker;
        thread = undefined;
        await old.terminate();
      }
      const used = (thread ??= start());
      if (used.waiting.size >= MOST_WAITING)
        throw new TryError('other pictures are waiting; try again in a moment', 429);
      for (const model of question.models) used.models.add(keyOf(model));
      const id = asked++;
      const answer = await new Promise<Answer>((settle) => {
        used.waiting.set(id, settle);
        used.worker.postMessage({ ...question, id } satisfies Question);
      });
      used.waiting.delete(id);
      if ('result' in answer) return answer.result;
      throw new TryError(answer.error, 422);
    },
    close: async () => void (await thread?.worker.terminate()),
  };
}

const hasAll = ({ models }: Thread, wanted: readonly TriedModel[]) =>
  models.size === 0 || wanted.every((model) => models.has(keyOf(model)));

const keyOf = ({ model, version }: TriedModel) => JSON.stringify([model, version]);

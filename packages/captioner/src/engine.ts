/** Receives requests in the worker and computes them, token by token. */
import type { FromWorker, ToWorker } from './messages';
import { Lane } from './lane';
import type { OpenModel } from './open-model';
import { KeptTensors, pictureReaders } from './pictures';
import { prepare, RefusedError } from './prepare';

export interface Engine {
  receive(message: ToWorker): void;
  /** Ends after a message `close`. */
  run(): Promise<void>;
}

/** Lets messages arrive. */
const breathe = () => new Promise<void>((resolve) => void setImmediate(resolve));

/** @param picture_cache_bytes of what is kept of pictures */
export function createEngine(
  { models, processor }: OpenModel,
  picture_cache_bytes: number,
  port: (message: FromWorker) => void,
): Engine {
  const open = new Set<number>();
  const cancelled = new Set<number>();
  const send = (message: FromWorker) => {
    if ('id' in message && message.type !== 'token')
      for (const ids of [open, cancelled]) ids.delete(message.id);
    port(message);
  };
  const kept = new KeptTensors(picture_cache_bytes);
  const readers = pictureReaders(models, processor.imageSize, kept);
  const lanes = new Map(
    [...models].map(([name, model]) => [name, new Lane(model, processor, readers.get(name)!, send)]),
  );
  const [fallback] = models.keys();
  let isClosed = false;
  let wake = (): void => undefined;

  async function begin({ id, task }: ToWorker & { type: 'request' }): Promise<void> {
    open.add(id);
    try {
      const lane = lanes.get(task.adapter ?? fallback);
      if (!lane) throw new RefusedError('RequestError', unknownAdapter(task.adapter, [...lanes.keys()]));
      lane.add(await prepare(id, task, lane.model, processor));
    } catch (error) {
      const { reason = 'ComputeError', message } = error as Partial<RefusedError> & Error;
      send({ type: 'error', id, name: reason, message });
    }
    wake();
  }

  return {
    receive(message) {
      if (message.type === 'request') void begin(message);
      else if (message.type === 'close') isClosed = true;
      else if (open.has(message.id)) cancelled.add(message.id);
      wake();
    },
    async run() {
      while (!isClosed) {
        const busy = [...lanes.values()].filter(({ isBusy }) => isBusy);
        for (const lane of busy) await lane.turn(breathe, cancelled);
        if (busy.length === 0 && !isClosed) await new Promise<void>((resolve) => (wake = resolve));
      }
    },
  };
}

const unknownAdapter = (name: string | undefined, names: string[]) =>
  `adapter: expected one of ${names.join(', ')}, found "${name}"`;

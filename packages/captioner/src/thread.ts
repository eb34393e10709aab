/** The worker thread: starts it, and starts it again after a crash. */
import { Worker } from 'node:worker_threads';
import { CaptionerError } from './errors';
import type { FromWorker, ToWorker, WorkerData, WorkerOptions } from './messages';
import type { CaptionerInfo } from './types';

/** Milliseconds before a worker is started again after a crash; they double while it goes on crashing. */
const [FIRST_PAUSE, LONGEST_PAUSE] = [100, 5000];
/** A worker that was ready for so many milliseconds has the first pause again. */
const STEADY = 60_000;

export interface ThreadEvents {
  onMessage(message: FromWorker): void;
  /** The thread is ready, for the first time or again. */
  onReady(info: CaptionerInfo): void;
  /** The thread could not be started. */
  onFailed(error: CaptionerError): void;
  /** The thread has ended by itself. */
  onCrash(error: CaptionerError): void;
}

export interface Thread {
  readonly state: 'starting' | 'ready' | 'failed';
  /** Starts it if it does not run and no start is planned. */
  start(): void;
  post(message: ToWorker, transfer?: ArrayBuffer[]): void;
  /** Whether it keeps the process alive. */
  hold(isHeld: boolean): void;
  /** Ends it: at once, or after its present step; a worker that still loads always at once. */
  end(atOnce: boolean): Promise<void>;
}

/** Where this package's worker is, in `dist`. */
const program = () => new URL('./worker.js', import.meta.url);

export function createThread(options: WorkerOptions, url: URL = program(), events: ThreadEvents): Thread {
  let worker: Worker | undefined;
  let state: Thread['state'] = 'starting';
  let isHeld = true;
  let ending = false;
  let pause = FIRST_PAUSE;
  let readyAt = 0;
  let restart: NodeJS.Timeout | undefined;

  function start(): void {
    if (worker || restart || ending) return;
    state = 'starting';
    const workerData: WorkerData = { blip2Captioner: options };
    const own = new Worker(url, { workerData, name: 'blip2-captioner' });
    worker = own;
    let why: Error | undefined;
    own.on('message', (message: FromWorker) => {
      if (message.type === 'failed') why = new CaptionerError('LoadError', message.message);
      else if (message.type !== 'ready') events.onMessage(message);
      else {
        state = 'ready';
        readyAt = performance.now();
        events.onReady(message.info);
      }
    });
    own.on('error', (error: Error) => (why = error));
    own.on('exit', (code) => ended(own, why, code));
    hold(isHeld);
  }

  function ended(own: Worker, why: Error | undefined, code: number): void {
    if (worker !== own) return;
    worker = undefined;
    if (ending) return;
    const loaded = state === 'ready';
    state = loaded ? 'starting' : 'failed';
    const reason = why?.message ?? `exit code ${code}`;
    if (loaded) {
      startLater();
      events.onCrash(
        new CaptionerError(
          'WorkerCrashError',
          `the worker ended (${reason}) and is started again; repeat the request`,
        ),
      );
    } else events.onFailed(asLoadError(why, reason, url));
  }

  function startLater(): void {
    if (performance.now() - readyAt > STEADY) pause = FIRST_PAUSE;
    restart = setTimeout(() => {
      restart = undefined;
      start();
    }, pause);
    pause = Math.min(2 * pause, LONGEST_PAUSE);
  }

  function hold(held: boolean): void {
    isHeld = held;
    for (const one of [worker, restart]) {
      if (held) one?.ref();
      else one?.unref();
    }
  }

  return {
    get state() {
      return state;
    },
    start,
    post: (message, transfer) => worker?.postMessage(message, transfer),
    hold,
    async end(atOnce) {
      ending = true;
      clearTimeout(restart);
      const own = worker;
      if (!own) return;
      own.ref();
      if (atOnce || state !== 'ready') return void (await own.terminate());
      const exit = new Promise<void>((resolve) => own.once('exit', () => resolve()));
      own.postMessage({ type: 'close' } satisfies ToWorker);
      await exit;
    },
  };
}

function asLoadError(why: Error | undefined, reason: string, url: URL): CaptionerError {
  if (why instanceof CaptionerError) return why;
  const missing =
    (why as NodeJS.ErrnoException | undefined)?.code === 'MODULE_NOT_FOUND' ||
    /Cannot find module/.test(reason);
  if (!missing) return new CaptionerError('LoadError', `the worker cannot start: ${reason}`);
  return new CaptionerError(
    'LoadError',
    `the worker cannot start: expected its program at ${url.href}; if a bundler has moved the code, leave @blip2/captioner out of the bundle ` +
      '(external), or give its dist/worker.js as `worker`',
  );
}

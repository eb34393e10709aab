/** The queue of a captioner, in the caller's thread. It holds what waits, and sends as much to the worker as is computed together. */
import { CaptionerError } from './errors';
import type { FromWorker, Task } from './messages';
import type { Thread } from './thread';
import type { GeneratedText, RequestOptions, ScoredText, TextToken } from './types';

type Result = GeneratedText | ScoredText[];

interface Job {
  id: number;
  task: Task;
  onToken?: (token: TextToken) => void;
  /** Settles the promise; once. */
  resolve(result: Result): void;
  reject(error: unknown): void;
  isSettled: boolean;
}

export interface QueueLimits {
  max_batch: number;
  max_queue: number;
}

export class RequestQueue {
  private readonly waiting: Job[] = [];
  /** What the worker has, by id; an aborted request keeps its place until the worker has dropped it. */
  private readonly running = new Map<number, Job>();
  private nextId = 0;
  private drained: (() => void)[] = [];
  tokens = 0;

  constructor(
    private readonly thread: Thread,
    private readonly limits: QueueLimits,
  ) {}

  get counts(): { running: number; waiting: number } {
    return { running: this.running.size, waiting: this.waiting.length };
  }

  /** @throws CaptionerError (QueueFullError) if there is no place */
  checkPlace(): void {
    const { max_batch, max_queue } = this.limits;
    const free = this.thread.state === 'ready' ? max_batch - this.running.size : 0;
    if (this.waiting.length < max_queue + free) return;
    throw new CaptionerError(
      'QueueFullError',
      `${this.waiting.length} requests wait already (max_queue ${max_queue}); try again later`,
    );
  }

  /** The result of a request. It ends early by its signal, its time limit, or a crash of the worker. */
  submit(
    task: Task,
    { signal, time_limit_ms }: Pick<RequestOptions, 'signal' | 'time_limit_ms'>,
    onToken?: (token: TextToken) => void,
  ): Promise<Result> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason as Error);
      this.checkPlace();
      const onAbort = () => this.cancel(job, signal!.reason);
      const timer =
        time_limit_ms === undefined
          ? undefined
          : setTimeout(() => this.cancel(job, tooLong(time_limit_ms)), time_limit_ms);
      const settle = (how: () => void) => {
        if (job.isSettled) return;
        job.isSettled = true;
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
        how();
      };
      const job: Job = {
        ...{ id: this.nextId++, task, onToken, isSettled: false },
        resolve: (result) => settle(() => resolve(result)),
        reject: (error) => settle(() => reject(error as Error)),
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.waiting.push(job);
      this.pump();
    });
  }

  /** Sends waiting requests while there is room in the worker. */
  pump(): void {
    if (this.waiting.length > 0 || this.running.size > 0) this.thread.hold(true);
    if (this.waiting.length > 0 && this.thread.state === 'failed') this.thread.start();
    while (
      this.thread.state === 'ready' &&
      this.waiting.length > 0 &&
      this.running.size < this.limits.max_batch
    ) {
      this.send(this.waiting.shift()!);
    }
    if (this.waiting.length > 0 || this.running.size > 0) return;
    this.thread.hold(this.thread.state === 'starting');
    for (const done of this.drained.splice(0)) done();
  }

  /** A request with a value that threads cannot send each other, such as a function, is refused. */
  private send(job: Job): void {
    const { id, task } = job;
    const { image } = task;
    try {
      this.thread.post(
        { type: 'request', id, task },
        typeof image === 'string' ? [] : [image.buffer as ArrayBuffer],
      );
      this.running.set(id, job);
    } catch (error) {
      job.reject(new CaptionerError('RequestError', `options: ${(error as Error).message}`));
    }
  }

  receive(message: FromWorker): void {
    const job = 'id' in message ? this.running.get(message.id) : undefined;
    if (!job) return;
    if (message.type === 'token') {
      this.tokens++;
      if (!job.isSettled) job.onToken?.(message.token);
      return;
    }
    this.running.delete(job.id);
    if (message.type === 'text') {
      if ((job.task.generation.num_beams ?? 1) > 1) this.tokens += message.text.tokens.length; // not sent one by one
      job.resolve(message.text);
    }
    if (message.type === 'scores') job.resolve(message.scores);
    else if (message.type === 'error') job.reject(new CaptionerError(message.name, message.message));
    this.pump();
  }

  /** The worker has lost what it had. */
  rejectRunning(error: unknown): void {
    const jobs = [...this.running.values()];
    this.running.clear();
    for (const job of jobs) job.reject(error);
    this.pump();
  }

  rejectAll(error: unknown): void {
    const jobs = this.waiting.splice(0);
    for (const job of jobs) job.reject(error);
    this.rejectRunning(error);
  }

  /** Resolves when nothing waits and nothing runs. */
  drain(): Promise<void> {
    if (this.waiting.length + this.running.size === 0) return Promise.resolve();
    return new Promise((resolve) => void this.drained.push(resolve));
  }

  private cancel(job: Job, error: unknown): void {
    job.reject(error);
    const at = this.waiting.indexOf(job);
    if (at >= 0) this.waiting.splice(at, 1);
    else if (this.running.has(job.id)) this.thread.post({ type: 'cancel', id: job.id });
    this.pump();
  }
}

const tooLong = (ms: number) =>
  new CaptionerError('TimeLimitError', `the time limit of the request, ${ms} ms, has passed`);

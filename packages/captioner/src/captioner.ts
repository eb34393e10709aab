/** BLIP-2 in a worker thread, for servers and other apps: their own thread never computes. */
import { CaptionerError } from './errors';
import { sendableImage } from './image';
import type { Task } from './messages';
import { RequestQueue } from './queue';
import { stream } from './stream';
import type { TextStream } from './stream';
import { createThread } from './thread';
import type {
  CaptionerInfo,
  CaptionerOptions,
  CaptionerState,
  GeneratedText,
  ImageSource,
  RequestOptions,
  ScoredText,
  TextOptions,
  TextToken,
} from './types';

export interface Captioner extends AsyncDisposable {
  readonly info: CaptionerInfo;
  /** A caption of the picture. @throws CaptionerError, or the reason of the signal */
  caption(image: ImageSource, options?: TextOptions): Promise<GeneratedText>;
  /** The answer to a question about the picture. @throws as `caption` */
  answer(image: ImageSource, question: string, options?: TextOptions): Promise<GeneratedText>;
  /** `caption` token by token; leaving the loop ends the request. Without num_beams. @throws as `caption`, in the loop */
  streamCaption(image: ImageSource, options?: TextOptions): TextStream;
  /** `answer` token by token. */
  streamAnswer(image: ImageSource, question: string, options?: TextOptions): TextStream;
  /** The probabilities of given texts, as answers to `question` or as captions. In their order. @throws as `caption` */
  score(image: ImageSource, texts: readonly string[], options?: ScoreOptions): Promise<ScoredText[]>;
  /** What happens now. */
  state(): CaptionerState;
  /**
   * Takes no more requests, lets those that were accepted finish, and ends the worker. With `drain: false` they are rejected with a ClosedError
   * and it ends at once.
   */
  close(options?: { drain?: boolean }): Promise<void>;
}

export interface ScoreOptions extends RequestOptions {
  question?: string;
  /** As in TextOptions. */
  prompt?: string;
}

/** Loads a model in a worker thread. @throws CaptionerError (LoadError) with what is wrong */
export async function createCaptioner(options: CaptionerOptions): Promise<Captioner> {
  const { max_batch = 8, max_queue = 64, max_bytes = 2 ** 26, time_limit_ms, worker, ...rest } = options;
  const service = await startService(rest, worker, { max_batch, max_queue });
  const { queue, thread } = service;
  let isClosed = false;

  function refuseClosed(): void {
    if (isClosed) throw new CaptionerError('ClosedError', 'the captioner is closed');
  }
  const submit: Submit = async (image, task, { signal, time_limit_ms: own = time_limit_ms }, onToken) => {
    refuseClosed();
    queue.checkPlace();
    const source = await sendableImage(image, max_bytes);
    refuseClosed();
    return (await queue.submit({ image: source, ...task }, { signal, time_limit_ms: own }, onToken)) as never;
  };

  const captioner: Captioner = {
    get info() {
      return service.info();
    },
    ...requestsTo(submit),
    state: () => ({
      state: isClosed ? 'closed' : thread.state,
      ...queue.counts,
      restarts: service.restarts(),
      tokens: queue.tokens,
    }),
    async close({ drain = true } = {}) {
      isClosed = true;
      if (drain) await queue.drain();
      queue.rejectAll(new CaptionerError('ClosedError', 'the captioner was closed'));
      await thread.end(!drain);
    },
    [Symbol.asyncDispose]: () => captioner.close(),
  };
  return captioner;
}

/** The worker thread, once its model is loaded, and the queue in front of it. @throws CaptionerError (LoadError) */
async function startService(
  options: Parameters<typeof createThread>[0],
  worker: CaptionerOptions['worker'],
  limits: { max_batch: number; max_queue: number },
) {
  let restarts = 0;
  let info: CaptionerInfo;
  let started: { resolve: () => void; reject: (error: Error) => void } | undefined;
  const thread = createThread(options, worker, {
    onMessage: (message) => queue.receive(message),
    onReady(found) {
      info = found;
      started?.resolve();
      queue.pump();
    },
    onFailed(error) {
      started?.reject(error);
      queue.rejectAll(error);
    },
    onCrash(error) {
      restarts++;
      queue.rejectRunning(error);
    },
  });
  const queue = new RequestQueue(thread, limits);
  await new Promise<void>((resolve, reject) => {
    started = { resolve, reject };
    thread.start();
  });
  queue.pump();
  return { thread, queue, info: () => info, restarts: () => restarts };
}

/** Sends a request, and waits for its result. */
type Submit = <T>(
  image: ImageSource,
  task: Omit<Task, 'image'>,
  options: RequestOptions,
  onToken?: (token: TextToken) => void,
) => Promise<T>;

type Requests = Pick<Captioner, 'caption' | 'answer' | 'streamCaption' | 'streamAnswer' | 'score'>;

function requestsTo(submit: Submit): Requests {
  const text = (image: ImageSource, question: string | undefined, o: TextOptions = {}) =>
    submit<GeneratedText>(image, taskOf(question, o), o);
  const textStream = (image: ImageSource, question: string | undefined, o: TextOptions = {}) =>
    stream(o.signal, (signal, onToken) => {
      const { num_beams = 1 } = o;
      if (num_beams > 1)
        throw new CaptionerError(
          'RequestError',
          `num_beams ${num_beams}: beam search cannot stream, its texts change until the end`,
        );
      return submit<GeneratedText>(image, taskOf(question, o), { ...o, signal }, onToken);
    });
  return {
    caption: (image, o) => text(image, undefined, o),
    answer: text,
    streamCaption: (image, o) => textStream(image, undefined, o),
    streamAnswer: textStream,
    async score(image, texts, o = {}) {
      const { question, prompt, adapter } = o;
      if (texts.length === 0 || texts.some((one) => one.trim() === ''))
        throw new CaptionerError('RequestError', 'score: expected texts that are not empty');
      const task = { question, prompt, adapter, generation: {}, answers: [...texts] };
      return submit<ScoredText[]>(image, task, o);
    },
  };
}

/** A request without its picture, and without what stays in this thread. */
function taskOf(question: string | undefined, o: TextOptions): Omit<Task, 'image'> {
  const { adapter, prompt, top_tokens, attention_map, signal, time_limit_ms, ...generation } = o;
  void [signal, time_limit_ms];
  return { question, adapter, prompt, top_tokens, attention_map, generation };
}

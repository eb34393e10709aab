/** Requests to the hub with limits: on waiting, on the rate, and on the size of what is read. */
import { setTimeout as sleep } from 'node:timers/promises';

export interface FetchLimits {
  /** The longest wait, in milliseconds: for an answer, and for the next `MIN_RATE` bytes for each second of it. */
  timeoutMs: number;
  /** Called for each failed attempt that is followed by another one. */
  onRetry?: (problem: string) => void;
}

/** Bytes a second. Below this a connection counts as broken. */
const MIN_RATE = 1024;
const ATTEMPTS = 3;
/** Answers of the API: a list of 1,000 files has about 0.3 MB. */
const MAX_BODY = 32 * 2 ** 20;
const MAX_REQUESTS = 50;

/** An answer that another attempt would not change. */
export class RefusedError extends Error {
  override readonly name = 'RefusedError';
}

/** A response whose body can be read by `bodyOf`. */
export interface Answer {
  response: Response;
  /** Ends the request. */
  abort: AbortController;
  timeoutMs: number;
}

/** Sends a request and waits for the head of the answer. */
export async function ask(url: string | URL, init: RequestInit, { timeoutMs }: FetchLimits): Promise<Answer> {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(new Error(`no answer in ${timeoutMs / 1000} s`)), timeoutMs);
  try {
    const response = await fetch(url, { ...init, signal: abort.signal });
    return { response, abort, timeoutMs };
  } finally {
    clearTimeout(timer);
  }
}

/** The chunks of a body. Only the time spent waiting for the network counts, not that of the reader. */
export async function* bodyOf({ response, abort, timeoutMs }: Answer): AsyncGenerator<Uint8Array> {
  const reader = response.body?.getReader();
  if (!reader) return;
  const stalled = new Error(`less than ${MIN_RATE} bytes a second for ${timeoutMs / 1000} s`);
  let [waited, received] = [0, 0];
  try {
    for (;;) {
      const start = performance.now();
      const timer = setTimeout(() => abort.abort(stalled), timeoutMs - waited);
      const { done, value } = await reader.read().finally(() => clearTimeout(timer));
      if (done) return;
      waited += performance.now() - start;
      received += value.length;
      if (received >= (MIN_RATE * timeoutMs) / 1000) waited = received = 0;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

/** Runs `work` up to three times, with growing pauses; `work` returns false if it made enough progress to start over. */
export async function withRetries<T>(
  { timeoutMs, onRetry }: FetchLimits,
  work: () => Promise<T>,
  hasProgressed: () => boolean = () => false,
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (hasProgressed()) attempt = 1;
      if (error instanceof RefusedError || attempt === ATTEMPTS) throw error;
      onRetry?.(describe(error));
      await sleep((timeoutMs / 10) * 2 ** (attempt - 1));
    }
  }
}

/** Whether an answer may be another one after a pause: too many requests, or a failure of the server. */
export const isTemporary = (status: number): boolean => status === 408 || status === 429 || status >= 500;

/** `fetch` for the hub's API: to its own host, with limits, and with the whole body read. */
export function limitedFetch(origin: string, limits: FetchLimits): typeof fetch {
  let requests = 0;
  return async (input, init = {}) => {
    const url = input instanceof Request ? input.url : String(input);
    if (new URL(url).origin !== new URL(origin).origin)
      throw new RefusedError(`expected a list on ${origin}, found ${url}`);
    if (++requests > MAX_REQUESTS) throw new RefusedError(`expected at most ${MAX_REQUESTS} pages`);
    return withRetries(limits, async () => {
      const answer = await ask(url, init, limits);
      const { response } = answer;
      const body = await wholeBody(answer);
      if (isTemporary(response.status)) throw new Error(`status ${response.status}: ${textOf(body)}`);
      const { status, statusText, headers } = response;
      const whole = new Response(body.length ? body : null, { status, statusText, headers });
      return Object.defineProperty(whole, 'url', { value: url });
    });
  };
}

async function wholeBody(answer: Answer): Promise<Buffer<ArrayBuffer>> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of bodyOf(answer)) {
    if ((size += chunk.length) > MAX_BODY)
      throw new RefusedError(`expected an answer of at most ${MAX_BODY} bytes, found more`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** The start of an error's body, on one line. */
const textOf = (body: Buffer): string => body.toString('utf8', 0, 200).replace(/\s+/g, ' ').trim();

/** The message of an error and of its causes. `fetch` names the reason only there. */
export function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { code } = error as NodeJS.ErrnoException;
  const cause = error.cause ? ` (${describe(error.cause)})` : '';
  return `${error.message || code || error.name}${cause}`;
}

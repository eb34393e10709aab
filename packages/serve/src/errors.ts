/** Errors as answers: a status, and a body in the shape of OpenAI's errors. */
import { CaptionerError } from '@blip2/captioner';
import type { ErrorName } from '@blip2/captioner';

/** A request that is refused. */
export class HttpError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly code: string = 'invalid_request',
  ) {
    super(message);
  }
}

const STATUS: Readonly<Record<ErrorName, number>> = {
  ImageError: 400,
  RequestError: 400,
  QueueFullError: 429,
  TimeLimitError: 504,
  WorkerCrashError: 503,
  ClosedError: 503,
  LoadError: 503,
  ComputeError: 500,
};

/** Seconds after which a refused client may try again. */
const RETRY_AFTER: Readonly<Record<number, string>> = { 429: '2', 503: '5' };

const snake = (name: string) => name.replace(/(?!^)[A-Z]/g, '_$&').toLowerCase();

/** What a client is told of an error; nothing of unexpected ones but that they happened. */
export function describeError(error: unknown): { status: number; message: string; code: string } {
  if (error instanceof HttpError) return error;
  if (error instanceof CaptionerError)
    return { status: STATUS[error.name], message: error.message, code: snake(error.name) };
  return { status: 500, message: 'the server failed at this request', code: 'internal_error' };
}

export function errorBody(error: unknown): string {
  const { status, message, code } = describeError(error);
  const type =
    status < 500 ? (status === 429 ? 'rate_limit_error' : 'invalid_request_error') : 'server_error';
  return JSON.stringify({ error: { message, type, param: null, code } });
}

export function errorResponse(error: unknown): Response {
  const { status } = describeError(error);
  const headers: Record<string, string> = { 'content-type': 'application/json' };
  if (RETRY_AFTER[status]) headers['retry-after'] = RETRY_AFTER[status];
  if (status === 401) headers['www-authenticate'] = 'Bearer';
  return new Response(errorBody(error), { status, headers });
}

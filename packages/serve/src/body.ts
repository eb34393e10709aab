/** Bodies of requests: each bounded, and all that are held at a time bounded together. */
import type { MiddlewareHandler } from 'hono';
import { HttpError } from './errors';
import { checkJsonShape } from './shape';

export interface BodyLimits {
  /** Most bytes of one body. */
  max_body: number;
  /** Most bytes of all that are under way, with pictures that are fetched. */
  max_bodies: number;
}

/** Adds bytes to those that a request holds until it ends. @throws HttpError (429) if there is no memory now */
export type Reserve = (bytes: number) => void;

/**
 * Refuses bodies that are too large, by their length or while they arrive, and requests for which there is no memory now. The variable
 * `reserve` of the context is for what a request holds besides its body.
 */
export function boundBodies({
  max_body,
  max_bodies,
}: BodyLimits): MiddlewareHandler<{ Variables: { reserve: Reserve } }> {
  let held = 0;
  return async (c, next) => {
    let own = 0;
    const reserve: Reserve = (bytes) => {
      if (held + bytes > max_bodies)
        throw new HttpError(429, 'too many uploads at a time; try again later', 'busy');
      held += bytes;
      own += bytes;
    };
    c.set('reserve', reserve);
    const declared = c.req.header('content-length');
    const size = declared === undefined ? max_body : Number(declared);
    if (c.req.raw.body && !(size <= max_body)) throw tooLarge(max_body);
    if (c.req.raw.body) reserve(size);
    try {
      await next();
    } finally {
      held -= own;
    }
  };
}

/** The bytes of a body. @throws HttpError (413) as soon as it is longer than allowed */
export async function readBody(request: Request, max_body: number): Promise<Buffer<ArrayBuffer>> {
  const parts: Uint8Array[] = [];
  let size = 0;
  try {
    for await (const part of request.body ?? []) {
      size += part.length;
      if (size > max_body) throw tooLarge(max_body);
      parts.push(part);
    }
  } catch (error) {
    if (error instanceof HttpError) throw error;
    throw new HttpError(400, 'the body ended before it was complete', 'incomplete_body');
  }
  return Buffer.concat(parts, size);
}

const tooLarge = (max: number) =>
  new HttpError(413, `expected a body of at most ${max} bytes, found more`, 'body_too_large');

/** @throws HttpError (400) */
export function parseJson(bytes: Uint8Array): Record<string, unknown> {
  checkJsonShape(bytes);
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    throw new HttpError(400, 'expected a JSON document, found something else', 'invalid_json');
  }
  if (typeof json === 'object' && json !== null && !Array.isArray(json))
    return json as Record<string, unknown>;
  throw new HttpError(400, 'expected a JSON object, found something else', 'invalid_json');
}

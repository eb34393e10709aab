/** Who may ask: Host, Origin and token, checked before anything is read. */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { MiddlewareHandler } from 'hono';
import { HttpError } from './errors';

const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/;

/** Whether an address or name is of this machine alone. */
export const isLoopback = (host: string): boolean => LOOPBACK.test(host) || host === '::1';

/** Names without port. `undefined`: those of loopback. */
export function checkHost(allowed: readonly string[] | '*' | undefined): MiddlewareHandler {
  return async (c, next) => {
    if (allowed !== '*') {
      const host = c.req.header('host') ?? new URL(c.req.url).host;
      const name = nameOf(host);
      if (name === undefined || !(allowed ? allowed.includes(name) : isLoopback(name)))
        throw new HttpError(421, 'Host: this server does not have that name', 'unknown_host');
    }
    await next();
  };
}

/** The name in a Host header; undefined if it is none. */
function nameOf(host: string): string | undefined {
  try {
    const url = new URL(`http://${host}`);
    return url.host.toLowerCase() === host.toLowerCase() || `${url.host}:80` === host
      ? url.hostname
      : undefined;
  } catch {
    return undefined;
  }
}

/** A page of another origin may only ask if it is listed. Programs send no Origin. */
export function checkOrigin(allowed: readonly string[]): MiddlewareHandler {
  return async (c, next) => {
    const origin = c.req.header('origin');
    const own = `${new URL(c.req.url).protocol}//${c.req.header('host')}`;
    const crossSite = c.req.header('sec-fetch-site') === 'cross-site' && origin === undefined;
    if (crossSite || (origin !== undefined && origin !== own && !allowed.includes(origin)))
      throw new HttpError(403, 'Origin: pages of that origin may not ask this server', 'unknown_origin');
    await next();
  };
}

/** Bearer tokens; compared in a time that does not depend on the token. */
export function checkToken(token: string): MiddlewareHandler {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  const expected = digest(token);
  return async (c, next) => {
    const [, given = ''] = /^Bearer +(\S+)$/i.exec(c.req.header('authorization') ?? '') ?? [];
    if (!timingSafeEqual(digest(given), expected))
      throw new HttpError(401, 'expected the header Authorization: Bearer TOKEN', 'invalid_api_key');
    await next();
  };
}

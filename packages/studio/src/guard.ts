/**
 * Who may use a server on this machine: only a page that it sent itself, opened by the address that it printed. Against pages of
 * other sites (Host, Origin, Fetch metadata, token), names that lead here (DNS rebinding: Host), and other users (session).
 */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import type { Context, MiddlewareHandler } from 'hono';
import { getCookie, setCookie } from 'hono/cookie';
import { secureHeaders } from 'hono/secure-headers';

export interface Secrets {
  /** in the printed address; becomes a cookie that scripts cannot read */
  session: string;
  /** in the page; each request that changes something has it */
  token: string;
}

const secret = () => randomBytes(24).toString('base64url');
export const newSecrets = (): Secrets => ({ session: secret(), token: secret() });

/** Whether two texts are equal, in a time that does not depend on where they differ. */
function same(a: string | undefined, b: string): boolean {
  const [x, y] = [Buffer.from(a ?? ''), Buffer.from(b)];
  return x.length === y.length && timingSafeEqual(x, y);
}

const LOOPBACK = ['localhost', '127.0.0.1', '[::1]'];

/** Refuses hosts other than this machine's own names, and requests that pages of other sites make. */
export function ownHostOnly(): MiddlewareHandler {
  return async (c, next) => {
    const host = c.req.header('host') ?? '';
    const name = host.replace(/:\d+$/, '').toLowerCase();
    if (!LOOPBACK.includes(name))
      return c.text(`Host: expected ${LOOPBACK.join(', ')}, found another; open the printed address`, 403);
    const origin = c.req.header('origin');
    if (origin !== undefined && origin !== `http://${host}`)
      return c.text('Origin: expected the page of this server, found another site', 403);
    if (['cross-site', 'same-site'].includes(c.req.header('sec-fetch-site') ?? '') && !isNavigation(c))
      return c.text('expected a request of the page of this server, found one of another site', 403);
    await next();
  };
}

const isNavigation = (c: Context) =>
  c.req.method === 'GET' && c.req.path === '/' && c.req.header('sec-fetch-mode') === 'navigate';

/**
 * The printed address has `?session=…`, which becomes a cookie; everything needs it. What changes something also needs the header
 * `x-studio-token`, which only the page knows.
 */
export function sessionOnly({ session, token }: Secrets): MiddlewareHandler {
  return async (c, next) => {
    const cookie = `studio-${(c.req.header('host') ?? '').replace(/^.*:/, '')}`; // cookies do not know ports
    const given = c.req.query('session');
    if (c.req.path === '/' && given !== undefined) {
      if (!same(given, session))
        return c.text('the session in the address is of another start of studio', 403);
      setCookie(c, cookie, session, { httpOnly: true, sameSite: 'Strict', path: '/' });
      return c.redirect('/');
    }
    if (!same(getCookie(c, cookie), session))
      return c.text('no session: open the address that `blip2 studio` printed', 401);
    const changes = !['GET', 'HEAD'].includes(c.req.method);
    if (changes && !same(c.req.header('x-studio-token'), token))
      return c.text(
        'x-studio-token: expected the token of the page, found none or another; load the page again',
        403,
      );
    await next();
  };
}

const COMMON = {
  referrerPolicy: 'no-referrer',
  strictTransportSecurity: false,
  originAgentCluster: false,
} as const;

/**
 * Nothing but the page's own files runs or loads, and no other page can frame it. Pages that are made of a run's files can be framed by
 * ours; they are of no origin, and their own policy allows their own script only.
 */
export function pageHeaders(): MiddlewareHandler {
  const own = secureHeaders({
    ...COMMON,
    contentSecurityPolicy: {
      defaultSrc: ["'none'"],
      scriptSrc: ["'self'"],
      styleSrc: ["'self'"],
      imgSrc: ["'self'", 'data:', 'blob:'],
      connectSrc: ["'self'"],
      frameSrc: ["'self'"],
      baseUri: ["'none'"],
      formAction: ["'none'"],
      frameAncestors: ["'none'"],
    },
    xFrameOptions: 'DENY',
  });
  const framed = secureHeaders({
    ...COMMON,
    contentSecurityPolicy: { sandbox: ['allow-scripts', 'allow-popups'], frameAncestors: ["'self'"] },
    xFrameOptions: 'SAMEORIGIN',
  });
  return (c, next) => (FRAMED.test(c.req.path) ? framed : own)(c, next);
}

const FRAMED = /^\/api\/(?:runs\/[^/]+\/report|comparison)$/;

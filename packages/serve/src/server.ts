/** A server of its own: limits on connections and slow clients, and an end that lets requests finish. */
import { createServer } from 'node:http';
import type { Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { getRequestListener } from '@hono/node-server';
import type { Captioner } from '@blip2/captioner';
import { createApp } from './app';
import type { AppOptions } from './app';
import { errorBody, HttpError } from './errors';
import { isLoopback } from './guard';

export interface ServerOptions extends Omit<AppOptions, 'isDraining'> {
  /** 8000 by default; 0 takes a free one. */
  port?: number;
  /** 127.0.0.1 by default. Others need a token. */
  host?: string;
  /**
   * Requests that are under way at a time; 128 by default. The next ones get status 503, but for /healthz and /readyz. Eight times as many
   * connections may be open; to the next ones, those without a request are closed.
   */
  max_requests?: number;
  /** Milliseconds in which a request must have arrived; 30,000 by default. */
  request_timeout_ms?: number;
  /** Milliseconds after which a connection without traffic is closed; 300,000 by default. */
  idle_timeout_ms?: number;
}

export interface RunningServer {
  /** Its address, without a slash at the end. */
  url: string;
  /** Takes no more connections, lets requests finish for `grace_ms` (30,000), then ends those that are left. The captioner stays open. */
  close(options?: { grace_ms?: number }): Promise<void>;
}

/** Starts it. @throws Error for an address beyond this machine without a token, or one that is taken */
export async function startServer(captioner: Captioner, options: ServerOptions = {}): Promise<RunningServer> {
  const { port = 8000, host = '127.0.0.1', token, hosts = isLoopback(host) ? undefined : '*' } = options;
  if (!isLoopback(host) && !token)
    throw new Error(`${host}: a server that other machines reach needs a token; set one, or take 127.0.0.1`);
  let isDraining = false;
  const app = createApp(captioner, { ...options, hosts, isDraining: () => isDraining });
  const server = limited(getRequestListener(app.fetch), options);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => resolve());
  });
  const { port: taken } = server.address() as AddressInfo;
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${taken}`,
    async close({ grace_ms = 30_000 } = {}) {
      isDraining = true;
      const closed = new Promise<void>((resolve) => void server.close(() => resolve()));
      server.closeIdleConnections();
      const timer = setTimeout(() => server.closeAllConnections(), grace_ms);
      await closed;
      clearTimeout(timer);
    },
  };
}

function limited(listener: ReturnType<typeof getRequestListener>, o: ServerOptions): Server {
  const { max_requests = 128, request_timeout_ms = 30_000, idle_timeout_ms = 300_000 } = o;
  let open = 0;
  const server = createServer(
    {
      requestTimeout: request_timeout_ms,
      headersTimeout: Math.min(10_000, request_timeout_ms),
      connectionsCheckingInterval: Math.min(1000, request_timeout_ms),
      keepAliveTimeout: 5000,
    },
    (request, response) => {
      if (open >= max_requests && !HEALTH.test(request.url ?? '')) return refuse(response);
      open++;
      response.once('close', () => open--);
      void listener(request, response);
    },
  );
  server.maxConnections = 8 * max_requests;
  server.setTimeout(idle_timeout_ms);
  // when there are too many, connections that ask nothing make room for those that do
  server.on('drop', () => server.closeIdleConnections());
  return server;
}

/** They are answered however much there is to do: a process that does not answer them is killed. */
const HEALTH = /^\/(?:healthz|readyz)(?:\?|$)/;

function refuse(response: ServerResponse): void {
  const error = new HttpError(503, 'too many requests at a time; try again later', 'busy');
  response.writeHead(503, { 'content-type': 'application/json', 'retry-after': '5', connection: 'close' });
  response.end(errorBody(error));
}

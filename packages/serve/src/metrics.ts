/** Figures for Prometheus, in a registry of their own. */
import type { Captioner } from '@blip2/captioner';
import type { MiddlewareHandler } from 'hono';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';

/** Seconds: a small model answers in milliseconds, a large one on two cores in tens of seconds. */
const BUCKETS = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300];

export interface Metrics {
  registry: Registry;
  /** Counts requests by route and status. */
  observe: MiddlewareHandler;
}

export function createMetrics(captioner: Captioner): Metrics {
  const registry = new Registry();
  const registers = [registry];
  const gauge = (name: string, help: string, value: () => number) =>
    new Gauge({
      ...{ name, help, registers },
      collect() {
        this.set(value());
      },
    });
  gauge('blip2_requests_running', 'Requests that are computed', () => captioner.state().running);
  gauge('blip2_requests_waiting', 'Requests in the queue', () => captioner.state().waiting);
  const counter = (name: string, help: string, value: () => number) =>
    new Counter({
      ...{ name, help, registers },
      collect() {
        this.reset();
        this.inc(value());
      },
    });
  counter(
    'blip2_worker_restarts_total',
    'Starts of the worker after a crash',
    () => captioner.state().restarts,
  );
  counter('blip2_tokens_total', 'Tokens generated since the start', () => captioner.state().tokens);
  const labelNames = ['route', 'status'] as const;
  const requests = new Counter({
    name: 'blip2_http_requests_total',
    help: 'Requests',
    labelNames,
    registers,
  });
  const seconds = new Histogram({
    ...{
      name: 'blip2_http_request_seconds',
      help: 'Seconds until the answer, of a stream until it begins',
      registers,
    },
    ...{ labelNames, buckets: BUCKETS },
  });
  return {
    registry,
    observe: async (c, next) => {
      const end = seconds.startTimer();
      await next();
      const route = ROUTES.has(c.req.path) ? c.req.path : 'other';
      const labels = { route, status: String(c.res.status) };
      requests.inc(labels);
      end(labels);
    },
  };
}

/** Other paths are counted together, so that clients cannot make new series. */
const ROUTES = new Set([
  '/v1/chat/completions',
  '/v1/models',
  '/caption',
  '/answer',
  '/healthz',
  '/readyz',
  '/metrics',
]);

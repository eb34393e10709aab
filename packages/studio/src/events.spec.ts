import { Hono } from 'hono';
import { expect, it } from 'vitest';
import type { TryEvent } from './api';
import { lines } from './events';

it.each([
  ['before they begin', 0],
  ['while the first is awaited', 20],
])('lines end when the client leaves %s', { timeout: 5000 }, async (_, after) => {
  let isCancelled = false;
  const endless = new ReadableStream<TryEvent>({ cancel: () => void (isCancelled = true) });
  const app = new Hono().get('/', (c) => lines(c, endless));
  const signal = after === 0 ? AbortSignal.abort() : AbortSignal.timeout(after);
  const answer = await app.fetch(new Request('http://localhost/', { signal }));
  expect(await answer.text()).toBe('');
  expect(isCancelled).toBe(true);
});

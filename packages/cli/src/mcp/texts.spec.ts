/** Several calls for texts at once, and how long the model stays in memory. */
import type { Workplace } from '@blip2/studio';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { openTexts } from './texts';

/** Stands in for a model. */
const fake = { running: 0, most: 0, closed: 0 };
vi.mock('@blip2/captioner', () => ({
  createCaptioner: () =>
    Promise.resolve({
      caption: async () => {
        fake.most = Math.max(fake.most, ++fake.running);
        await new Promise((resolve) => setTimeout(resolve, 1000));
        fake.running--;
        return { text: 'a', confidence: 1 };
      },
      close: () => Promise.resolve(void fake.closed++),
    }),
}));

const workplace = {
  file: (path: string) => Promise.resolve(path),
  model: (path: string) =>
    path === 'gone' ? Promise.reject(new Error('there is none')) : Promise.resolve(path),
} as Workplace;
const { signal } = new AbortController();
const images = Array.from({ length: 64 }, (_, i) => `${i}.png`);
const MINUTES = 60_000;

beforeEach(() => {
  vi.useFakeTimers();
  Object.assign(fake, { running: 0, most: 0, closed: 0 });
});
afterEach(() => vi.useRealTimers());

it('answers one call after the other', async () => {
  const texts = openTexts(workplace);
  const both = Promise.all([
    texts.ask({ model: 'm', images }, signal),
    texts.ask({ model: 'm', images }, signal),
  ]);
  await vi.advanceTimersByTimeAsync(3000);
  expect((await both).flat()).toHaveLength(128);
  expect(fake.most).toBe(64);
});

it('frees the model ten minutes after the last call, also after one that failed', async () => {
  const texts = openTexts(workplace);
  const first = texts.ask({ model: 'm', images }, signal);
  await vi.advanceTimersByTimeAsync(1000);
  await first;
  await expect(texts.ask({ model: 'gone', images }, signal)).rejects.toThrow('there is none');
  await vi.advanceTimersByTimeAsync(9 * MINUTES);
  expect(fake.closed).toBe(0);
  await vi.advanceTimersByTimeAsync(2 * MINUTES);
  expect(fake.closed).toBe(1);
});

it('keeps the model while a call waits or runs', async () => {
  const texts = openTexts(workplace);
  const asked = Array.from({ length: 700 }, () => texts.ask({ model: 'm', images: ['a.png'] }, signal));
  await vi.advanceTimersByTimeAsync(11 * MINUTES);
  expect(fake.closed).toBe(0);
  await vi.advanceTimersByTimeAsync(MINUTES);
  await Promise.all(asked);
  await texts.close();
  await expect(texts.ask({ model: 'm', images }, signal)).rejects.toThrow('is ending');
});

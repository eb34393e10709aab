/** What a captioner does under load, and when requests or its worker end early. */
import { spawnSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { bundle } from '../../../tsup.config';
import { describe, expect, it } from 'vitest';
import { BYTES, EMOJI, open, PICTURES, TINY, workerProgram } from '../spec/testing';
import type { Captioner, TextOptions } from './index';

/** A second or so on the tiny model. */
const SLOW: TextOptions = { max_new_tokens: 50, min_new_tokens: 50 };
const QUICK: TextOptions = { max_new_tokens: 2, min_new_tokens: 2 };

const named = (name: string) => expect.objectContaining({ name }) as Error;
const settled = async (promises: Promise<unknown>[]) =>
  (await Promise.allSettled(promises)).map((one) =>
    one.status === 'fulfilled' ? 'done' : (one.reason as Error).name,
  );
const untilIdle = async (captioner: Captioner) => {
  for (let i = 0; i < 500 && captioner.state().running > 0; i++) await sleep(10);
  return captioner.state();
};

describe('the queue', () => {
  it('refuses what has no place with a QueueFullError, and takes requests again afterwards', async () => {
    await using captioner = await open({ max_batch: 2, max_queue: 3 });
    const all = Array.from({ length: 9 }, () => captioner.caption(BYTES[0], SLOW));
    const names = await settled(all);
    expect(names.filter((name) => name === 'done')).toHaveLength(5);
    expect(names.filter((name) => name === 'QueueFullError')).toHaveLength(4);
    await captioner.caption(BYTES[0], QUICK);
  });

  it('an aborted request rejects at once with the reason, and its place is free', async () => {
    await using captioner = await open({ max_batch: 1, max_queue: 1 });
    const running = new AbortController();
    const waiting = new AbortController();
    const first = captioner.caption(BYTES[0], { ...SLOW, signal: running.signal });
    await sleep(30);
    const second = captioner.caption(BYTES[0], { ...SLOW, signal: waiting.signal });
    await sleep(5);
    await expect(captioner.caption(BYTES[0])).rejects.toEqual(named('QueueFullError'));
    waiting.abort(new Error('no longer needed'));
    await expect(second).rejects.toThrow('no longer needed');
    expect(captioner.state()).toMatchObject({ running: 1, waiting: 0 });
    running.abort();
    await expect(first).rejects.toEqual(named('AbortError'));
    expect(await untilIdle(captioner)).toMatchObject({ running: 0, waiting: 0 });
    await expect(captioner.caption(BYTES[0], { signal: AbortSignal.abort() })).rejects.toEqual(
      named('AbortError'),
    );
    await captioner.caption(BYTES[0], QUICK);
  });

  it('leaving the loop of a stream ends its request', async () => {
    await using captioner = await open({ max_batch: 1 });
    for await (const token of captioner.streamCaption(BYTES[0], SLOW)) {
      expect(token.probability).toBeGreaterThan(0);
      break;
    }
    await untilIdle(captioner);
    const left = captioner.state().tokens;
    await captioner.caption(BYTES[0], QUICK);
    expect(left).toBeLessThan(40);
  });

  it('a time limit rejects with a TimeLimitError, of beam search too, and the place is free', async () => {
    await using captioner = await open({ max_batch: 2, time_limit_ms: 60 });
    for (const options of [SLOW, { ...SLOW, num_beams: 4 }])
      await expect(captioner.caption(BYTES[0], options)).rejects.toEqual(named('TimeLimitError'));
    expect(await untilIdle(captioner)).toMatchObject({ running: 0, waiting: 0 });
    await captioner.caption(BYTES[0], { ...QUICK, time_limit_ms: 60_000 });
  });
});

describe('the worker', () => {
  it('after a crash rejects what it had, starts again, and goes on with what waited', async () => {
    await using captioner = await open({ max_batch: 3 });
    const first = [1, 2].map(() => captioner.caption(BYTES[0], SLOW));
    const fatal = captioner.caption(BYTES[0], { prompt: 'crash' });
    const waiting = [1, 2, 3].map(() => captioner.caption(BYTES[1], QUICK));
    expect(await settled([...first, fatal])).toEqual(Array(3).fill('WorkerCrashError'));
    expect(await settled(waiting)).toEqual(['done', 'done', 'done']);
    expect(captioner.state()).toMatchObject({ state: 'ready', restarts: 1, running: 0 });
    await expect(fatal).rejects.toThrow(
      'the worker ended (as asked) and is started again; repeat the request',
    );
  });

  it('survives many crashes without growing', async () => {
    await using captioner = await open();
    const sizes: number[] = [];
    for (let i = 0; i < 5; i++) {
      await expect(captioner.caption(PICTURES[0], { prompt: 'crash' })).rejects.toEqual(
        named('WorkerCrashError'),
      );
      await captioner.caption(PICTURES[0], QUICK);
      sizes.push(process.memoryUsage().rss);
    }
    expect(captioner.state().restarts).toBe(5);
    expect((sizes[4] - sizes[1]) / 2 ** 20).toBeLessThan(100); // a thread has about 40 MiB
  }, 120_000);
});

describe('closing', () => {
  it('lets accepted requests finish, and refuses later ones', async () => {
    const captioner = await open({ max_batch: 1 });
    const accepted = [1, 2, 3].map(() => captioner.caption(BYTES[0], QUICK));
    await sleep(5);
    const closed = captioner.close();
    await expect(captioner.caption(BYTES[0])).rejects.toEqual(named('ClosedError'));
    await closed;
    expect(await settled(accepted)).toEqual(['done', 'done', 'done']);
    expect(captioner.state().state).toBe('closed');
    await captioner.close();
  });

  it('without draining rejects them at once', async () => {
    const captioner = await open({ max_batch: 1 });
    const accepted = [1, 2, 3].map(() => captioner.caption(BYTES[0], SLOW));
    const names = settled(accepted);
    await sleep(5);
    await captioner.close({ drain: false });
    expect(await names).toEqual(Array(3).fill('ClosedError'));
  });

  it('a program that forgets to close ends nevertheless, after its requests', async () => {
    const file = await bundle(new URL('../spec/forgetful-program.ts', import.meta.url));
    const { status, stdout } = spawnSync(process.execPath, [file, await workerProgram(), TINY, PICTURES[0]], {
      encoding: 'utf8',
      timeout: 50_000,
    });
    expect(status).toBe(0);
    expect(stdout).toMatch(/^text: .+\n$/);
  });
});

/** Turns of this thread's event loop until `work` is done. */
async function turnsDuring(work: Promise<unknown>): Promise<number> {
  let [turns, isDone] = [0, false];
  const end = work.finally(() => (isDone = true));
  for (; !isDone; turns++) await new Promise<void>((resolve) => void setImmediate(resolve));
  await end;
  return turns;
}

describe('under load', () => {
  it('the event loop of the caller turns far more often than once for each token', async () => {
    await using captioner = await open({ model: EMOJI, backend: 'wasm', precision: 'float32' });
    const options = { min_new_tokens: 20, max_new_tokens: 20 };
    const requests = Array.from({ length: 7 }, (_, i) => captioner.caption(BYTES[i % 3], options));
    const streamed = captioner.streamCaption(BYTES[0], options);
    await streamed[Symbol.asyncIterator]().next(); // the pictures are read
    const turns = await turnsDuring(Promise.all([streamed.result, ...requests]));
    expect(turns).toBeGreaterThan(50 * 20); // about 20 if this thread computed the tokens
  });

  it('a thousand requests leave memory as it is', async () => {
    await using captioner = await open({ max_batch: 8, max_queue: 1000 });
    const some = (count: number) =>
      Promise.all(
        Array.from({ length: count }, (_, i) => {
          const request = captioner.caption(BYTES[i % 3], {
            ...QUICK,
            signal: AbortSignal.timeout(i % 10 === 9 ? 3 : 60_000),
          });
          return request.catch(() => undefined);
        }),
      );
    await some(400);
    const before = process.memoryUsage().rss;
    await some(1000);
    expect((process.memoryUsage().rss - before) / 2 ** 20).toBeLessThan(40);
    expect(await untilIdle(captioner)).toMatchObject({ running: 0, waiting: 0, restarts: 0 });
  }, 120_000);
});

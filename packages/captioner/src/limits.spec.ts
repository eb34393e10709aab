/** What a captioner does under load, and when requests or its worker end early. */
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { bundle } from '../../../tsup.config';
import { describe, expect, it } from 'vitest';
import { BYTES, EMOJI, open, PICTURES, TINY, TINY_T5, workerProgram } from '../spec/testing';
import type { Captioner, CaptionerOptions, TextOptions } from './index';

/** A second at least on the tiny T5, which has no largest length: long enough to be still running after a pause of this thread. */
const SLOW: TextOptions = { max_new_tokens: 400, min_new_tokens: 400 };
const openSlow = (options: Partial<CaptionerOptions>) => open({ model: TINY_T5, ...options });
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
    await using captioner = await openSlow({ max_batch: 2, max_queue: 3 });
    const all = Array.from({ length: 9 }, () => captioner.caption(BYTES[0], SLOW));
    const names = await settled(all);
    expect(names.filter((name) => name === 'done')).toHaveLength(5);
    expect(names.filter((name) => name === 'QueueFullError')).toHaveLength(4);
    await captioner.caption(BYTES[0], QUICK);
  });

  it('an aborted request rejects at once with the reason, and its place is free', async () => {
    await using captioner = await openSlow({ max_batch: 1, max_queue: 1 });
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
    await using captioner = await openSlow({ max_batch: 1 });
    for await (const token of captioner.streamCaption(BYTES[0], SLOW)) {
      expect(token.probability).toBeGreaterThan(0);
      break;
    }
    await untilIdle(captioner);
    const left = captioner.state().tokens;
    await captioner.caption(BYTES[0], QUICK);
    expect(left).toBeLessThan(300);
  });

  it('a time limit rejects with a TimeLimitError, of beam search too, and the place is free', async () => {
    await using captioner = await openSlow({ max_batch: 2, time_limit_ms: 60 });
    for (const options of [SLOW, { ...SLOW, num_beams: 4 }])
      await expect(captioner.caption(BYTES[0], options)).rejects.toEqual(named('TimeLimitError'));
    expect(await untilIdle(captioner)).toMatchObject({ running: 0, waiting: 0 });
    await captioner.caption(BYTES[0], { ...QUICK, time_limit_ms: 60_000 });
  });
});

describe('the worker', () => {
  it('after a crash rejects what it had, starts again, and goes on with what waited', async () => {
    await using captioner = await openSlow({ max_batch: 3 });
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

  it('that ends while requests are read, written, scored and streamed leaves no promise open', async () => {
    await using captioner = await openSlow({ max_batch: 20 });
    const kinds = () => [
      captioner.caption(BYTES[0], SLOW),
      captioner.caption(PICTURES[1], { ...SLOW, num_beams: 3 }),
      captioner.score(BYTES[2], ['a', 'the dog']),
      captioner.answer(BYTES[0], 'what is it ?', { ...SLOW, signal: AbortSignal.timeout(2) }),
      captioner.caption(BYTES[0], { ...SLOW, time_limit_ms: 1 }),
      (async () => {
        for await (const token of captioner.streamCaption(BYTES[1], SLOW)) void token;
      })(),
    ];
    const first = settled(kinds());
    await sleep(20);
    const last = await settled([captioner.caption(BYTES[0], { prompt: 'exit' }), ...kinds()]);
    const names = [...(await first), ...last];
    expect(names).toHaveLength(13);
    expect(last[0]).toBe('WorkerCrashError');
    const ends = ['WorkerCrashError', 'TimeoutError', 'TimeLimitError', 'done'];
    for (const name of names) expect(ends).toContain(name);
    expect(await untilIdle(captioner)).toMatchObject({ running: 0, waiting: 0, restarts: 1 });
    await captioner.caption(BYTES[0], QUICK);
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
  }, 240_000);
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
    const captioner = await openSlow({ max_batch: 1 });
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

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** MiB by which these figures vary by themselves: what is outside of the heap is freed some time after a collection. */
const LARGEST: Readonly<Record<string, number>> = {
  ...{ rss: 30, external: 4, arrayBuffers: 4 },
  ...{ workerExternal: 4, workerBuffers: 4 },
};

/** Bytes that are held after a collection, in this thread and in the worker, and tensors there. */
async function memoryNow(): Promise<Record<string, number>> {
  const channel = new BroadcastChannel('memory');
  const answer = once(channel as unknown as EventTarget, 'message') as Promise<
    [{ data: Record<string, number> }]
  >;
  channel.postMessage('now');
  const [{ data }] = await answer;
  channel.close();
  collect();
  const { heapUsed, external, arrayBuffers, rss } = process.memoryUsage();
  return { heapUsed, external, arrayBuffers, rss, ...data };
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

  it('a request joins those that are computed between two tokens, and ends before they do', async () => {
    await using captioner = await openSlow({});
    const ends: string[] = [];
    const long = captioner.streamCaption(BYTES[0], SLOW);
    const tokens = long[Symbol.asyncIterator]();
    for (let i = 0; i < 3; i++) await tokens.next();
    const short = captioner.caption(BYTES[1], QUICK).then(() => ends.push('short'));
    for (let next = await tokens.next(); !next.done;) next = await tokens.next();
    ends.push('long');
    await short;
    expect(ends).toEqual(['short', 'long']);
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
    const grown = async () => {
      const before = await memoryNow();
      await some(1000);
      expect(await untilIdle(captioner)).toMatchObject({ running: 0, waiting: 0, restarts: 0 });
      const after = await memoryNow();
      expect(after.tensors).toBe(before.tensors);
      return Object.entries(after).map(([name, value]) => [name, (value - before[name]) / 2 ** 20] as const);
    };
    await some(400);
    await untilIdle(captioner);
    let large: string[] = [];
    // What leaks grows every time; what an allocator or the collector keeps for later does not.
    for (let round = 0; round === 0 || (large.length > 0 && round < 3); round++) {
      const all = await grown();
      process.stdout.write(
        `MiB after 1000 requests more: ${all.map(([name, more]) => `${name} ${more.toFixed(3)}`).join(', ')}\n`,
      );
      large = all.filter(([name, more]) => more >= (LARGEST[name] ?? 1)).map(([name]) => name);
    }
    expect(large).toEqual([]);
  }, 240_000);
});

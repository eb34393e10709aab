/** When the worker thread is started again, and how it ends. */
import { EventEmitter, once } from 'node:events';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { createThread } from './thread';

afterEach(() => void vi.useRealTimers());

/** A thread that runs the given program in place of the worker. */
function threadOf(program: string) {
  const events = new EventEmitter();
  const url = new URL(`data:text/javascript,${encodeURIComponent(program)}`);
  const thread = createThread({ model: '' }, url, {
    onMessage: () => undefined,
    onReady: () => void events.emit('ready'),
    onFailed: (error) => void events.emit('failed', error),
    onCrash: (error) => void events.emit('crash', error),
  });
  return { thread, next: (name: string) => once(events, name) };
}

describe('a worker thread', () => {
  it('that still loads ends without waiting for the model', async () => {
    const { thread } = threadOf('setInterval(() => undefined, 1000)');
    thread.start();
    await thread.end(false);
    expect(thread.state).toBe('starting');
  });

  it('that crashes is started again after pauses that grow, and not after its end', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const { thread, next } = threadOf(`
      import { parentPort } from 'node:worker_threads';
      parentPort.postMessage({ type: 'ready', info: {} });
      parentPort.once('message', () => { throw new Error('as asked'); });`);
    thread.start();
    for (const pause of [100, 200, 400]) {
      const crash = next('crash');
      if (thread.state !== 'ready') await next('ready');
      thread.post({ type: 'close' });
      await crash;
      vi.advanceTimersByTime(pause - 1);
      thread.start();
      expect([thread.state, vi.getTimerCount()]).toEqual(['starting', 1]);
      vi.advanceTimersByTime(1);
      expect(vi.getTimerCount()).toBe(0);
    }
    await next('ready');
    const crash = next('crash');
    thread.post({ type: 'close' });
    await crash;
    await thread.end(false);
    expect(vi.getTimerCount()).toBe(0);
  });
});

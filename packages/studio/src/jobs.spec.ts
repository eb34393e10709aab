import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { EventEmitter } from 'node:events';
import { Hono } from 'hono';
import { expect, it } from 'vitest';
import { client, events, tinyFolder } from '../spec/studio';
import type { JobEvent } from './api';
import { jobEvents } from './events';
import { openFolders } from './folders';
import { startJob } from './jobs';
import type { Job } from './jobs';
import { openRuns } from './runs';

const eventsOf = async (job: Job, kind: 'check' | 'plan' = 'check') => {
  const app = new Hono().get('/', (c) => jobEvents(c, { job, kind }));
  return events<JobEvent>(await app.request('/'), (e) => e.type === 'end');
};
const node = (code: string) => startJob([process.execPath, '-e'], [code], process.cwd());

it('sends the lines that come while others are sent, before the end', async () => {
  const log = ['a'];
  const job: Job = {
    log,
    get lines() {
      // after this look at the lines, and before they are sent
      if (job.code === undefined)
        queueMicrotask(() => {
          if (log.length === 1) log.push('b');
          job.code = 0;
        });
      return log.length;
    },
    output: '{}',
    events: new EventEmitter<{ change: [] }>(),
    interrupt: () => undefined,
    ended: Promise.resolve(),
  };
  expect(await eventsOf(job)).toEqual([
    { type: 'log', lines: ['a'] },
    { type: 'log', lines: ['b'] },
    { type: 'end', ok: true, result: {} },
  ]);
});

it('ends with an error for a result that is cut, and for one of another form', async () => {
  const cut = node("process.stdout.write('[' + '1,'.repeat(9 << 20) + '1]')");
  await cut.ended;
  expect(cut.output.length).toBe(16 << 20);
  const message = expect.stringContaining(
    'expected a result in JSON of up to 16 MiB, found 16777216',
  ) as string;
  expect(await eventsOf(cut)).toEqual([{ type: 'end', ok: false, message }]);
  const [end] = await eventsOf(node("console.log('{}')"), 'plan');
  expect(end).toMatchObject({ type: 'end', ok: false });
});

it('keeps the beginning of a line that has no end', async () => {
  const job = node("process.stderr.write('error: x' + 'y'.repeat(1 << 20))");
  await job.ended;
  expect(job.log.map((line) => line.length)).toEqual([16 << 10]);
});

it('starts no more checks at once than it may, however they arrive', async () => {
  const { root } = await tinyFolder();
  const studio = await client(root, [process.execPath, '-e', 'setTimeout(() => 0, 60_000)']);
  const request = { kind: 'check', data: { path: 'data' } };
  const answers = await Promise.all(Array.from({ length: 6 }, () => studio.post('/api/jobs', request)));
  expect(answers.map(({ status }) => status).sort()).toEqual([200, 200, 200, 429, 429, 429]);
  await studio.studio.close();
});

it('starts no run that is being prepared when it closes', async () => {
  const { root } = await tinyFolder();
  const runs = await openRuns(join(root, 'runs'), [process.execPath, '-e', ''], await openFolders([root]));
  await mkdir(join(root, 'runs', 'a'));
  await writeFile(join(root, 'runs', 'a', 'config.yaml'), '');
  const resumed = runs.resume('a');
  const closed = runs.close();
  await expect(resumed).rejects.toThrow('blip2 is ending');
  await closed;
  expect(runs.job('a')).toBeUndefined();
});

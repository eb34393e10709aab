/** Runs of a script that logs as `blip2 fit` does: it writes rows until it is interrupted, and goes on with --resume. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Client } from '../spec/studio';
import { client, events, tinyFolder } from '../spec/studio';
import type { JobEvent, PlanTable, RunEvent, RunSummary } from './api';

const FIT = `
import { appendFileSync, existsSync, mkdirSync, truncateSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
const args = process.argv.slice(2);
if (args[0] !== 'fit') {
  console.error('reading');
  if (args.some((one) => one.endsWith('broken'))) { console.error('error: it is broken'); process.exit(1); }
  const facts = { data: { rows: 1, validation: 0, final: 0, pictures: 1 }, machine: { memory: 1e9, backend: 'cpu', precision: 'float32' } };
  console.log(JSON.stringify({ presets: [], facts, left_out: [{ preset: 'lora', why: args.join(' ') }] }));
  process.exit(0);
}
const dir = args.find((one) => one.startsWith('--output=')).slice(9);
let stopped = false;
process.on('SIGINT', () => (stopped = true));
const again = args.includes('--resume');
if (again) truncateSync(dir + '/metrics.jsonl', 11); // the first row
else {
  mkdirSync(dir);
  writeFileSync(dir + '/config.yaml', 'preset: lora');
  appendFileSync(dir + '/training-samples.jsonl', JSON.stringify({ step: 0, image: process.cwd() + '/data/red.png', reference: 'r', text: 't' }) + '\\n');
}
for (let step = again ? 2 : 1; !stopped && !(again && step > 4); step++) {
  appendFileSync(dir + '/metrics.jsonl', JSON.stringify({ step }) + '\\n');
  console.error('step ' + step);
  await sleep(30);
}
if (stopped) process.exit(130);
writeFileSync(dir + '/results.json', '{}');
`;

let studio: Client;
beforeAll(async () => {
  const { root } = await tinyFolder();
  const script = join(root, 'fit.mjs');
  await writeFile(script, FIT);
  studio = await client(root, [process.execPath, script]);
});
afterAll(() => studio.studio.close());

const settings = { model: 'data', data: 'data', num_train_epochs: 2 };
const state = async (name: string) => {
  const all = (await (await studio.get('/api/runs')).json()) as RunSummary[];
  return all.find((run) => run.name === name)?.state;
};
const watch = async (name: string, enough: (event: RunEvent) => boolean) =>
  events<RunEvent>(await studio.get(`/api/runs/${name}/events`), enough);
/** A stream ends when the logs are cut, and a page connects again; this returns the last stream. */
const watchToEnd = async (name: string) => {
  const isEnd = (e: RunEvent) => e.type === 'state' && e.state === 'finished';
  for (;;) {
    const found = await watch(name, isEnd);
    if (found.some(isEnd)) return found;
  }
};
const steps = (found: RunEvent[]) =>
  found.flatMap((e) => (e.type === 'metrics' ? e.rows.map(({ step }) => step) : []));

it('starts, is followed, stops with a checkpoint, and goes on', async () => {
  const answer = await studio.post('/api/runs', { name: 'first', settings });
  expect(await answer.json()).toEqual({ name: 'first' });
  const begun = await watch('first', (e) => e.type === 'metrics' && e.rows.some(({ step }) => step >= 3));
  expect(begun[0]).toEqual({ type: 'restart' });
  expect(steps(begun).slice(0, 3)).toEqual([1, 2, 3]);
  expect(begun.find((e) => e.type === 'samples')).toMatchObject({
    rows: [{ image: 'red.png', picture: 0, text: 't' }],
  });
  expect((await studio.get('/api/runs/first/picture?index=0&side=128')).headers.get('content-type')).toBe(
    'image/webp',
  );

  const stopping = watch('first', (e) => e.type === 'state' && e.state === 'stopped');
  // at once, because the run soon ends; the second is no second Ctrl-C
  const stops = [1, 2].map(() => studio.post('/api/runs/first/stop', {}));
  expect((await Promise.all(stops)).map(({ status }) => status)).toEqual([204, 204]);
  await stopping;
  expect(await state('first')).toBe('stopped');

  expect((await studio.post('/api/runs/first/resume', {})).status).toBe(204);
  expect((await studio.post('/api/runs/first/resume', {})).status).toBe(422);
  expect(steps(await watchToEnd('first'))).toEqual([1, 2, 3, 4]);
});

it('gives a second run of the same name another one, and ends a page that reads cut logs', async () => {
  expect(await (await studio.post('/api/runs', { name: 'first', settings })).json()).toEqual({
    name: 'first-2',
  });
  await watch('first-2', (e) => e.type === 'metrics' && e.rows.some(({ step }) => step >= 3));
  await studio.post('/api/runs/first-2/stop', {});
  await watch('first-2', (e) => e.type === 'state' && e.state === 'stopped');
  const whole = watch('first-2', () => false); // until the server ends it
  await watch('first-2', (e) => e.type === 'metrics');
  await studio.post('/api/runs/first-2/resume', {});
  expect(steps(await whole).length).toBeGreaterThan(2);
});

it('runs checks and plans, with their lines and their result or error', async () => {
  const job = async (request: object) => {
    const { id } = (await (await studio.post('/api/jobs', request)).json()) as { id: string };
    return events<JobEvent>(await studio.get(`/api/jobs/${id}/events`), (e) => e.type === 'end');
  };
  const plan = await job({ kind: 'plan', settings, memory: '16GB' });
  expect(plan[0]).toEqual({ type: 'log', lines: ['reading'] });
  const { about, left_out } = (plan.at(-1) as { result: PlanTable }).result;
  expect(about[0]).toBe('1 rows for training, 0 for validation, 0 for the final table; 1 pictures');
  expect(left_out[0].why).toMatch(
    /^plan --json --model=.*data --data=.*data --set=num_train_epochs=2 --memory=16GB$/,
  );
  const pictures = await job({ kind: 'check', data: { path: 'data', image_folder: 'data' } });
  expect(JSON.stringify(pictures.at(-1))).toMatch(
    /"data check --json --image-folder=\/.*data --skip-bad -- /,
  );
  const check = await job({ kind: 'check', data: { path: 'data', caption_column: 'broken' } });
  expect(check.at(-1)).toEqual({ type: 'end', ok: false, message: 'it is broken' });
});

it('stops what runs when it is closed', async () => {
  await studio.post('/api/runs', { name: 'last', settings });
  await watch('last', (e) => e.type === 'metrics');
  await studio.studio.close();
});

/** What is sent while it comes: server-sent events of jobs and runs, and lines of a text that is generated. */
import type { Context } from 'hono';
import type { SSEStreamingApi } from 'hono/streaming';
import { stream, streamSSE } from 'hono/streaming';
import type { MetricRow, TrainingSample } from '@blip2/trainer';
import { join } from 'node:path';
import type { JobEvent, JobRequest, LiveSample, RunEvent, TryEvent } from './api';
import { follow } from './follow';
import { PathError } from './folders';
import type { Job } from './jobs';
import { errorOf, linesFrom } from './jobs';
import { planTable } from './plan-table';
import type { Runs } from './runs';

/** Milliseconds between looks at the files of a run. */
const INTERVAL = 300;
/** Milliseconds until a page connects again. */
const RETRY = 500;
/** A line without meaning, so that a connection that is gone is noticed. */
const KEEP_ALIVE = 15_000;

const send = (stream: SSEStreamingApi, event: JobEvent | RunEvent) =>
  stream.writeSSE({ data: JSON.stringify(event) });

/** A check or a plan. */
export interface Task {
  job: Job;
  kind: JobRequest['kind'];
}

/** Lines of the log as they come, then the result. */
export function jobEvents(c: Context, { job, kind }: Task): Response {
  return streamSSE(c, async (stream) => {
    let seen = 0;
    while (!stream.aborted) {
      const lines = linesFrom(job, seen);
      seen = job.lines;
      if (lines.length > 0) {
        await send(stream, { type: 'log', lines });
        continue; // more may have come meanwhile
      }
      if (job.code !== undefined) return send(stream, endOf(job, kind));
      await changeOr(job, KEEP_ALIVE);
      await stream.write(':\n\n');
    }
  });
}

function endOf(job: Job, kind: Task['kind']): JobEvent {
  if (job.code !== 0) return { type: 'end', ok: false, message: job.code === 130 ? 'stopped' : errorOf(job) };
  try {
    const result: unknown = JSON.parse(job.output);
    return {
      type: 'end',
      ok: true,
      result: kind === 'plan' ? planTable(result as Parameters<typeof planTable>[0]) : result,
    };
  } catch (error) {
    const found = `${job.output.length} characters that cannot be used (${(error as Error).message.slice(0, 200)})`;
    return { type: 'end', ok: false, message: `expected a result in JSON of up to 16 MiB, found ${found}` };
  }
}

function changeOr(job: Job, ms: number): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      job.events.off('change', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    job.events.on('change', done);
  });
}

/** Checks the files of a run, which may not be there yet. @throws PathError for those outside of the folders */
async function checkRun(runs: Runs, name: string): Promise<void> {
  await runs.inside(name).catch((error: unknown) => {
    if (!(error instanceof PathError && error.status === 404)) throw error;
  });
}

/** What a run has logged so far, then what it adds, as long as someone looks. @throws PathError */
export async function runEvents(c: Context, runs: Runs, name: string): Promise<Response> {
  const dir = runs.folder(name);
  await checkRun(runs, name);
  return streamSSE(c, async (stream) => {
    const metrics = follow<MetricRow>(join(dir, 'metrics.jsonl'));
    const samples = follow<TrainingSample>(join(dir, 'training-samples.jsonl'));
    const isInside = () =>
      checkRun(runs, name).then(
        () => true,
        () => false,
      );
    const pictures: string[] = [];
    const numbered = (row: TrainingSample): LiveSample => {
      if (!pictures.includes(row.image)) pictures.push(row.image);
      return {
        ...row,
        image: row.image.slice(row.image.lastIndexOf('/') + 1),
        picture: pictures.indexOf(row.image),
      };
    };
    const job = runs.job(name);
    let [before, seen] = ['', 0];
    await stream.writeSSE({ retry: RETRY, data: JSON.stringify({ type: 'restart' } satisfies RunEvent) });
    for (let sent = Date.now(); !stream.aborted;) {
      const events: RunEvent[] = [];
      if (!(await isInside())) return; // the page connects again, and is refused
      const [m, s] = [await metrics(), await samples()];
      // resumed: the page connects again, and reads both from the beginning
      if (m.cut || s.cut || runs.job(name) !== job) return;
      const lines = job ? linesFrom(job, seen) : [];
      seen = job?.lines ?? 0;
      const state = runs.state(name);
      if (s.rows.length > 0) events.push({ type: 'samples', rows: s.rows.map(numbered) });
      if (m.rows.length > 0) events.push({ type: 'metrics', rows: m.rows });
      if (lines.length > 0) events.push({ type: 'log', lines });
      if (state !== before) events.push({ type: 'state', state });
      before = state;
      for (const event of events) await send(stream, event);
      if (events.length > 0) sent = Date.now();
      else if (Date.now() - sent > KEEP_ALIVE) {
        await stream.write(':\n\n');
        sent = Date.now();
      }
      await stream.sleep(INTERVAL);
    }
  });
}

/** A line of JSON for each event. An error before the first one is thrown, so that it has a status; a later one is the last line. */
export async function lines(c: Context, events: ReadableStream<TryEvent>): Promise<Response> {
  const reader = events.getReader();
  const leave = () => void reader.cancel().catch(() => undefined);
  const { signal } = c.req.raw;
  signal.addEventListener('abort', leave, { once: true });
  if (signal.aborted) leave(); // while the body was read
  const first = await reader.read();
  c.header('content-type', 'application/x-ndjson');
  return stream(c, async (out) => {
    const write = (event: TryEvent) => out.write(`${JSON.stringify(event)}\n`);
    try {
      for (let next = first; !next.done; next = await reader.read()) await write(next.value);
    } catch (error) {
      await write({ type: 'failed', message: (error as Error).message });
    }
  });
}

/** The routes of studio. Each answers with JSON, a picture, a page or events, and errors in plain text. */
import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { extname, join } from 'node:path';
import type { Context } from 'hono';
import { Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { CaptionerError } from '@blip2/captioner';
import type { Layout } from '@blip2/data-captions';
import { DataError, fileOfImage, LAYOUT } from '@blip2/data-captions';
import { compare, comparisonHtml, ConfigError, reportHtml, RunFolderError } from '@blip2/trainer';
import type { DataPlace, JobRequest, StudioInfo, TextChange } from './api';
import type { DataView } from './data';
import { pictureOf } from './data';
import { jobEvents, lines, runEvents } from './events';
import { listFolder } from './files';
import type { Folders } from './folders';
import { PathError } from './folders';
import type { Secrets } from './guard';
import { ownHostOnly, pageHeaders, sessionOnly } from './guard';
import type { Task } from './events';
import { startJob } from './jobs';
import type { Runs } from './runs';
import type { Captioners } from './try/captioners';
import { triedModels, TryError } from './try/models';
import { triedTexts } from './try/texts';
import { checkedSettings, chosenFor, jobArguments, SettingsError } from './settings';

export interface Studio {
  folders: Folders;
  data: DataView;
  runs: Runs;
  runsDir: string;
  /** starts blip2 */
  command: readonly string[];
  /** checks and plans, by their ids */
  jobs: Map<string, Task>;
  secrets: Secrets;
  captioners: Captioners;
  /** the folder of the built page */
  page: string;
}

const MOST_BODY = 1 << 20;
const MOST_PICTURE = 32 << 20;
/** Checks and plans at a time. */
const MOST_JOBS = 3;
/** Sides of pictures, in pixels. */
const SIDES = [128, 256, 512];

export function createApp(studio: Studio): Hono {
  const app = new Hono();
  app.use(pageHeaders(), ownHostOnly(), sessionOnly(studio.secrets));
  const limit = (maxSize: number) =>
    bodyLimit({ maxSize, onError: (c) => c.text('the request is too large', 413) });
  const [small, large] = [limit(MOST_BODY), limit(MOST_PICTURE)];
  app.use('/api/*', (c, next) => (c.req.path === '/api/try' ? large : small)(c, next));
  app.use('/api/*', async (c, next) => {
    await next();
    if (!c.res.headers.has('cache-control')) c.header('cache-control', 'no-store');
  });
  app.onError(failure);
  pageRoutes(app, studio);
  dataRoutes(app, studio);
  jobRoutes(app, studio);
  runRoutes(app, studio);
  tryRoutes(app, studio);
  return app;
}

const CAPTIONER_STATUS: Partial<Record<CaptionerError['name'], 429 | 503>> = {
  QueueFullError: 429,
  WorkerCrashError: 503,
  ClosedError: 503,
};

/** Errors that a user can do something about; others are bugs of studio, and only the terminal has their details. */
function failure(error: Error, c: Context): Response {
  if (error instanceof PathError || error instanceof TryError) return c.text(error.message, error.status);
  if (error instanceof CaptionerError) return c.text(error.message, CAPTIONER_STATUS[error.name] ?? 422);
  if (error instanceof RangeError && /call stack/.test(error.message))
    return c.text('expected JSON with few levels, found very many', 400);
  if (error instanceof SyntaxError) return c.text(`expected JSON: ${error.message}`, 400);
  const known = [DataError, SettingsError, ConfigError, RunFolderError].some((kind) => error instanceof kind);
  if (known || ['AdapterError', 'ModelError', 'WeightsError', 'RunFileError'].includes(error.name))
    return c.text(error.message, 422);
  process.stderr.write(`studio: ${c.req.method} ${c.req.path}: ${error.stack ?? error.message}\n`);
  return c.text('studio has failed; the terminal in which it runs has the details', 500);
}

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
};

/** The built page: its one document, with the token in it, and its files. */
function pageRoutes(app: Hono, { page, secrets }: Studio): void {
  app.get('/', async (c) => {
    const html = await readFile(join(page, 'index.html'), 'utf8');
    c.header('cache-control', 'no-store');
    return c.html(html.replace('STUDIO_TOKEN', secrets.token));
  });
  app.get('/assets/:name{[\\w-]+\\.(js|css|svg)}', async (c) => {
    const name = c.req.param('name');
    const bytes = await readFile(join(page, 'assets', name)).catch(() => undefined);
    if (!bytes) return c.text('there is no such file', 404);
    return c.body(new Uint8Array(bytes), 200, {
      'content-type': TYPES[extname(name)],
      'cache-control': 'private, max-age=31536000, immutable',
    });
  });
}

/** The data set that a request is about. */
function placeOf(c: Context): DataPlace {
  const layout = Object.keys(LAYOUT).flatMap((key) => {
    const value = c.req.query(key);
    return value ? [[key, value]] : [];
  });
  return { path: c.req.query('path') ?? '', ...(Object.fromEntries(layout) as Layout) };
}

/** A whole number in the address. */
function numberIn(c: Context, name: string): number {
  const value = Number(c.req.query(name) ?? 0);
  if (Number.isSafeInteger(value) && value >= 0) return value;
  throw new SettingsError(`${name}: expected a whole number, found ${JSON.stringify(c.req.query(name))}`);
}

const sideOf = (c: Context) => SIDES.find((side) => side === numberIn(c, 'side')) ?? 256;

const picture = (c: Context, bytes: Buffer) =>
  c.body(new Uint8Array(bytes), 200, {
    'content-type': 'image/webp',
    'cache-control': 'private, max-age=60',
  });

function dataRoutes(app: Hono, { folders, data, runsDir }: Studio): void {
  const info: StudioInfo = { folders: [...folders.roots], runs: folders.shown(runsDir) };
  app.get('/api/studio', (c) => c.json(info));
  app.get('/api/files', async (c) => c.json(await listFolder(folders, c.req.query('path') ?? '.')));
  app.get('/api/data', async (c) => {
    const { search, split } = c.req.query();
    return c.json(await data.page(placeOf(c), { search, split, from: numberIn(c, 'from') }));
  });
  app.get('/api/data/preview', async (c) => c.json(await data.preview(placeOf(c))));
  app.get('/api/data/picture', async (c) =>
    picture(c, await data.picture(placeOf(c), numberIn(c, 'index'), sideOf(c))),
  );
  app.post('/api/data/text', async (c) => {
    await data.change(textChange(await c.req.json()));
    return c.body(null, 204);
  });
}

function textChange(given: unknown): TextChange {
  const change = given as TextChange;
  const texts = [change?.path, change?.source, change?.from, change?.to, change?.role];
  const roles = ['caption', 'question', 'answer'];
  if (
    texts.every((text) => typeof text === 'string') &&
    roles.includes(change.role) &&
    Number.isSafeInteger(change.index)
  )
    return change;
  throw new SettingsError('expected path, source, role, index, from and to of a text');
}

function jobRoutes(app: Hono, { folders, jobs, command }: Studio): void {
  app.post('/api/settings', async (c) =>
    c.json(await chosenFor(await checkedSettings(await c.req.json(), folders))),
  );
  app.post('/api/jobs', async (c) => {
    const request = (await c.req.json()) as JobRequest;
    const args = await jobArguments(request, folders);
    // nothing is awaited from here until it is in `jobs`
    if ([...jobs.values()].filter(({ job }) => job.code === undefined).length >= MOST_JOBS)
      return c.text(`expected at most ${MOST_JOBS} checks and plans at a time; wait for one`, 429, {
        'retry-after': '5',
      });
    const id = randomUUID();
    const job = startJob(command, args, folders.roots[0]);
    jobs.set(id, { job, kind: request.kind });
    for (const [old, { job }] of jobs) if (jobs.size > 20 && job.code !== undefined) jobs.delete(old);
    return c.json({ id });
  });
  app.get('/api/jobs/:id/events', (c) => {
    const job = jobs.get(c.req.param('id'));
    return job ? jobEvents(c, job) : c.text('there is no such job', 404);
  });
  app.delete('/api/jobs/:id', (c) => {
    jobs.get(c.req.param('id'))?.job.interrupt();
    return c.body(null, 204);
  });
}

function runRoutes(app: Hono, studio: Studio): void {
  const { runs, folders } = studio;
  const isShown = (image: string) => folders.has(fileOfImage(image));
  app.get('/api/runs', async (c) => c.json(await runs.list()));
  app.post('/api/runs', async (c) => {
    const given = (await c.req.json()) as { name?: unknown; settings?: unknown } | null;
    if (typeof given?.name !== 'string') throw new SettingsError('name: expected a text, found none');
    const checked = await checkedSettings(given.settings, folders);
    return c.json({ name: await runs.start(given.name, checked) });
  });
  app.post('/api/runs/:name/stop', (c) => {
    runs.stop(c.req.param('name'));
    return c.body(null, 204);
  });
  app.post('/api/runs/:name/resume', async (c) => {
    await runs.resume(c.req.param('name'));
    return c.body(null, 204);
  });
  app.get('/api/runs/:name/events', (c) => runEvents(c, runs, c.req.param('name')));
  app.get('/api/runs/:name/picture', async (c) => {
    const images = await runs.pictures(c.req.param('name'));
    const image = images[numberIn(c, 'index')];
    if (image === undefined) return c.text('there is no such picture', 404);
    return picture(c, await pictureOf(folders, image, sideOf(c)));
  });
  app.get('/api/runs/:name/report', async (c) => {
    const dir = await runs.inside(c.req.param('name'));
    return c.html(await reportHtml(dir, isShown));
  });
  app.get('/api/comparison', async (c) => {
    const names = c.req.queries('run') ?? [];
    if (names.length < 2) throw new SettingsError('expected two or more runs to compare');
    const dirs = await Promise.all(names.map((name) => runs.inside(name)));
    const { runs: read, comparison } = await compare(dirs);
    return c.html(await comparisonHtml(read, comparison));
  });
}

function tryRoutes(app: Hono, { captioners, runs, folders }: Studio): void {
  app.post('/api/try', async (c) => {
    const { question, prompt } = c.req.query();
    const models = await triedModels(c.req.queries('run') ?? [], runs, folders);
    const bytes = new Uint8Array(await c.req.arrayBuffer());
    if (bytes.length === 0) throw new TryError('expected a picture, found nothing', 422);
    const asked = { bytes, question: question || undefined, prompt: prompt || undefined };
    return lines(c, triedTexts(captioners, models, asked));
  });
}

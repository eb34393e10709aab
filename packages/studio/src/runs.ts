/** Runs: folders of `blip2 fit`, and the processes that write them. */
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, realpath } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { HEADLINES, readRun } from '@blip2/trainer';
import type { TrainingSample } from '@blip2/trainer';
import type { RunState, RunSummary, Settings } from './api';
import type { Folders } from './folders';
import { PathError } from './folders';
import type { Job } from './jobs';
import { startJob } from './jobs';
import { argumentsOf, SettingsError } from './settings';

export interface Runs {
  list(): Promise<RunSummary[]>;
  /** starts a run and returns its name. @throws SettingsError */
  start(name: string, settings: Settings): Promise<string>;
  /** as Ctrl-C: a checkpoint is saved. @throws SettingsError if it does not run */
  stop(name: string): void;
  /** @throws SettingsError if it runs already; PathError if there is none */
  resume(name: string): Promise<void>;
  /** its folder, which a run that has just started does not have yet. @throws PathError */
  folder(name: string): string;
  /** the real path of its folder, in which no link leads outside. @throws PathError */
  inside(name: string): Promise<string>;
  state(name: string): RunState;
  job(name: string): Job | undefined;
  /** the fixed pictures of its samples, in order */
  pictures(name: string): Promise<string[]>;
  /** stops all, waits until their checkpoints are saved, and starts no more */
  close(): Promise<void>;
}

const NAME = /^[\p{L}\p{N}][\p{L}\p{N} ._+-]{0,79}$/u;
/** Runs at a time: each takes all cores. */
const MOST_RUNNING = 2;

/** @param command starts blip2. @throws PathError for a folder outside of `folders` */
export async function openRuns(dir: string, command: readonly string[], folders: Folders): Promise<Runs> {
  const root = await madeInside(dir, folders);
  const jobs = new Map<string, Job>();
  const stopping = new Set<string>();
  const folder = (name: string) => {
    if (!NAME.test(name))
      throw new PathError(`${JSON.stringify(name.slice(0, 80))}: is no name of a run`, 400);
    return join(root, name);
  };
  const running = (name: string) => jobs.get(name)?.code === undefined && jobs.has(name);
  let closed = false;
  const run = (name: string, args: string[]) => {
    if (closed) throw new SettingsError('no run can be started any more: blip2 is ending; start it again');
    if ([...jobs.keys()].filter(running).length >= MOST_RUNNING)
      throw new SettingsError(`expected at most ${MOST_RUNNING} runs at a time; stop one, or wait for it`);
    stopping.delete(name);
    jobs.set(name, startJob(command, args, folders.roots[0]));
  };
  const state = (name: string): RunState => {
    if (running(name)) return stopping.has(name) ? 'stopping' : 'running';
    const at = folder(name);
    if (existsSync(join(at, 'results.json'))) return 'finished';
    const { code } = jobs.get(name) ?? {};
    return code === undefined || code === 130 ? 'stopped' : 'failed';
  };
  return {
    folder,
    inside: (name) => runInside(folder(name), folders),
    state,
    job: (name) => jobs.get(name),
    list: async () => {
      const names = [...new Set([...jobs.keys(), ...(await namesIn(root))])].sort((a, b) =>
        b.localeCompare(a, 'en', { numeric: true }),
      );
      return Promise.all(names.map((name) => summary(join(root, name), name, state(name), folders)));
    },
    start: async (given, settings) => {
      folder(given);
      const name = free(root, given, jobs);
      run(name, ['fit', ...argumentsOf(settings), `--output=${join(root, name)}`]);
      return name;
    },
    stop: (name) => {
      if (!running(name)) throw new SettingsError(`${name}: does not run`);
      if (stopping.has(name)) return; // a second interrupt would end it without a checkpoint
      stopping.add(name);
      jobs.get(name)!.interrupt();
    },
    resume: async (name) => {
      const at = folder(name);
      if (running(name)) throw new SettingsError(`${name}: runs already`);
      if (!existsSync(join(at, 'config.yaml'))) throw new PathError(`${name}: there is no such run`, 404);
      await runInside(at, folders);
      run(name, ['fit', join(at, 'config.yaml'), `--output=${at}`, '--resume']);
    },
    pictures: async (name) => sampledPictures(await runInside(folder(name), folders)),
    close: async () => {
      closed = true;
      const open = [...jobs].filter(([name]) => running(name));
      for (const [name, job] of open) if (!stopping.has(name)) job.interrupt();
      await Promise.all(open.map(([, job]) => job.ended));
    },
  };
}

/** Makes a folder, and none outside. Returns its real path. @throws PathError */
async function madeInside(dir: string, folders: Folders): Promise<string> {
  let there = resolve(dir);
  while (!existsSync(there)) there = dirname(there);
  await folders.inside(there);
  await mkdir(dir, { recursive: true });
  return realpath(dir);
}

const namesIn = async (root: string) =>
  (await readdir(root)).filter((name) => NAME.test(name) && existsSync(join(root, name, 'config.yaml')));

/** The fixed pictures of a run's samples, in order. */
async function sampledPictures(dir: string): Promise<string[]> {
  const text = await readFile(join(dir, 'training-samples.jsonl'), 'utf8').catch(() => '');
  const rows = text
    .slice(0, text.lastIndexOf('\n') + 1) // a row may be half written
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as TrainingSample);
  return [...new Set(rows.map(({ image }) => image))];
}

function free(root: string, name: string, jobs: ReadonlyMap<string, Job>): string {
  const taken = (one: string) => jobs.has(one) || existsSync(join(root, one));
  if (!taken(name)) return name;
  for (let n = 2; ; n++) if (!taken(`${name}-${n}`)) return `${name}-${n}`;
}

/** The real path of a run's folder. Its files are read and written by name, so its links are checked too. @throws PathError */
async function runInside(dir: string, folders: Folders): Promise<string> {
  const real = await folders.inside(dir);
  const entries = await readdir(real, { withFileTypes: true }).catch(() => {
    throw new PathError(`${folders.shown(dir)}: expected a folder that can be read`, 403);
  });
  for (const entry of entries)
    if (entry.isSymbolicLink() && !(await folders.has(join(real, entry.name))))
      throw new PathError(
        `${folders.shown(dir)}: expected a run without links to other folders, found the link ${entry.name}; remove it`,
        403,
      );
  return real;
}

async function summary(dir: string, name: string, state: RunState, folders: Folders): Promise<RunSummary> {
  if (!existsSync(join(dir, 'config.yaml'))) return { name, state, tryable: false };
  try {
    await runInside(dir, folders);
    const { config, results, metrics } = await readRun(dir);
    const { headline, score } = results?.verdict ?? {};
    const made = ['adapter/adapter_config.json', 'model/config.json'].some((file) =>
      existsSync(join(dir, file)),
    );
    return {
      name,
      state,
      model: folders.shown(config.model),
      data: folders.shown(config.data),
      preset: config.preset,
      steps: results?.steps ?? metrics.at(-1)?.step,
      outcome: results?.verdict?.outcome,
      score:
        headline && score ? `${HEADLINES[headline].name} ${HEADLINES[headline].show(score.mean)}` : undefined,
      tryable: made,
    };
  } catch (error) {
    return { name, state, tryable: false, problem: (error as Error).message };
  }
}

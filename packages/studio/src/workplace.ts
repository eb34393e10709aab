/** What studio does behind its page, for other programs: data, plans and runs inside some folders. */
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { readRun } from '@blip2/trainer';
import type { MetricRow, RunResults, TrainingSample } from '@blip2/trainer';
import type { JobRequest, RunState, RunSummary } from './api';
import { openFolders } from './folders';
import type { Folders } from './folders';
import { lastRows } from './follow';
import { errorOf, linesFrom, startJob } from './jobs';
import type { Job } from './jobs';
import { openRuns } from './runs';
import { checkedSettings, jobArguments, pathOf } from './settings';
import { resultOf } from './try/models';

export interface WorkplaceOptions {
  /** folders that it may read; relative paths start from the first */
  folders: readonly string[];
  /** folder of the runs, inside one of these; made if it is not there */
  runs: string;
  /** starts blip2, such as node and the file of the command */
  command: readonly string[];
}

export interface WorkplaceRun {
  folder: string;
  state: RunState;
  /** the last lines that it printed, if it was started from here */
  log: readonly string[];
  /** the last rows of its metrics */
  metrics: MetricRow[];
  /** the texts of a few fixed pictures at its last steps */
  samples: TrainingSample[];
  /** once it has finished */
  results?: RunResults;
}

export interface Workplace {
  /** The real path of a file. @throws PathError for one outside of the folders, or one that is not there */
  file(path: string): Promise<string>;
  /** The path of a model or adapter, or a name on the hub that `blip2 pull` has fetched. @throws PathError */
  model(path: string): Promise<string>;
  /** The JSON that `blip2 data check` or `blip2 plan` prints. @throws Error with what the command printed; SettingsError, PathError */
  ask(
    request: JobRequest,
    watch?: { signal?: AbortSignal; onLine?: (line: string) => void },
  ): Promise<unknown>;
  /** Starts a run and returns its name, which ends in a number if the name is taken. @throws SettingsError, PathError */
  start(name: string, settings: unknown): Promise<string>;
  /** As Ctrl-C: a checkpoint is saved. @throws SettingsError if it does not run */
  stop(name: string): void;
  /** @throws SettingsError if it runs already; PathError if there is none */
  resume(name: string): Promise<void>;
  list(): Promise<RunSummary[]>;
  /** @throws PathError */
  run(name: string): Promise<WorkplaceRun>;
  /** What a run made. @throws RunFolderError without a result; PathError */
  result(name: string): Promise<{ base: string; model: string; adapter?: string }>;
  /** Stops checks, plans and runs, which save a checkpoint. */
  close(): Promise<void>;
}

/** @throws Error for a folder that is not there, or runs outside of the folders */
export async function openWorkplace(options: WorkplaceOptions): Promise<Workplace> {
  const { command } = options;
  const folders: Folders = await openFolders(options.folders);
  const runs = await openRuns(resolve(options.runs), command, folders);
  const jobs = new Set<Job>();
  return {
    file: folders.inside,
    model: (path) => pathOf(path, folders),
    async ask(request, watch = {}) {
      const args = await jobArguments(request, folders);
      watch.signal?.throwIfAborted();
      const job = startJob(command, args, folders.roots[0]);
      jobs.add(job);
      try {
        return await resultOfJob(job, watch);
      } finally {
        jobs.delete(job);
      }
    },
    start: async (name, settings) => runs.start(name, await checkedSettings(settings, folders)),
    stop: runs.stop,
    resume: runs.resume,
    list: runs.list,
    async run(name) {
      const [job, state] = [runs.job(name), runs.state(name)];
      const isMade = existsSync(runs.folder(name));
      const folder = job && !isMade ? runs.folder(name) : await runs.inside(name); // one that has just started has none
      return {
        folder,
        state,
        log: job?.log ?? [],
        metrics: await lastRows(join(folder, 'metrics.jsonl')),
        samples: await lastRows(join(folder, 'training-samples.jsonl')),
        results: state === 'finished' ? (await readRun(folder)).results : undefined,
      };
    },
    result: (name) => resultOf(name, runs, folders),
    async close() {
      for (const job of jobs) job.interrupt();
      await runs.close();
    },
  };
}

async function resultOfJob(
  job: Job,
  { signal, onLine }: NonNullable<Parameters<Workplace['ask']>[1]>,
): Promise<unknown> {
  const stop = () => job.interrupt();
  let seen = 0;
  const onChange = () => {
    for (const line of linesFrom(job, seen)) onLine?.(line);
    seen = job.lines;
  };
  signal?.addEventListener('abort', stop, { once: true });
  job.events.on('change', onChange);
  await job.ended;
  signal?.removeEventListener('abort', stop);
  signal?.throwIfAborted();
  if (job.code !== 0) throw new Error(errorOf(job));
  return JSON.parse(job.output);
}

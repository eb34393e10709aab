/** Fine-tuning from a config to a run folder: plan, open, cache, place, train, save, judge, report. */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { smoothingDigest } from '@blip2/blip2/node';
import { countsOf } from '@blip2/data-captions';
import type { Dataset } from '@blip2/data-captions';
import { dispose } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { isRetrievalFolder } from '@blip2/retrieval/node';
import { resolveModel } from '@blip2/weights/node';
import { captioning } from './captioning';
import { unlikelyToLearn } from './choose/unlikely';
import type { RunSize } from './choose/unlikely';
import type { FitConfig } from './config';
import { finalSplit } from './data/open';
import type { Figures, ResultsTable } from './evaluation';
import { generateCaptions } from './evaluation';
import { divided, StoppedElsewhere } from './evaluation/divided';
import type { NextStep } from './evaluation/next-step';
import type { Verdict } from './evaluation/verdict';
import type { FitHooks } from './hooks';
import { silent } from './hooks';
import { trainOptions } from './model/parts';
import { writeRunSmoothing } from './model/smoothing';
import type { Kind, Objective } from './objective';
import { writeReport } from './report';
import { retrieval } from './retrieval';
import { onDisk } from './run/disk';
import type { RunLock } from './run/folder';
import { chooseRunFolder, claimRunFolder, runLock, writeConfig, writeEnvironment } from './run/folder';
import { hashImages, runIdentity, writeImageList } from './run/identity';
import { writeResults } from './run/result';
import { checkpointToResume } from './run/resume';
import { trainRun } from './run/training';
import type { Cached, Opened, Placed, Planned } from './stages';
import type { Ending, TrainState } from './train/train';
import type { World } from './train/world';
import { alone, fromFirst, RankError } from './train/world';

export interface FitOptions {
  /** the processes that train together, with one folder of data, caches and runs; default: this one alone */
  world?: World;
  /** generates the texts; specs pass another function */
  generate?: typeof generateCaptions;
  /** called on rank 0 when data and texts are checked, before the model is loaded; the run waits for it */
  onPlanned?: (planned: Planned) => Promise<void>;
}

export interface FitResult {
  /** the run folder */
  output_dir: string;
  /** stopped by the signal; `resume` is the command that continues it */
  interrupted: boolean;
  resume?: string;
  steps: number;
  train_seconds: number;
  /** PEFT's trainable-parameters line */
  trainable: string;
  best?: TrainState['best'];
  /** why training ended, when it did */
  ended?: Ending;
  /** adapter/ or model/; this field and those below are set on rank 0 only */
  saved?: string;
  table?: ResultsTable;
  figures?: Figures;
  verdict?: Verdict;
  next?: NextStep;
  report?: string;
}

/**
 * Runs a fine-tuning. Messages, progress and rows go to the hooks; nothing is printed.
 * @param config the result of `parseConfig`; it is not checked again
 * @throws ConfigError, DataError, WeightsError, ModelError, AdapterError before anything is written;
 * RunFolderError for a folder that cannot be used; LockedError for one that another process is writing; NonFiniteError when training breaks down
 */
export async function fit(config: FitConfig, hooks: FitHooks = {}, o: FitOptions = {}): Promise<FitResult> {
  try {
    return await (isRetrievalFolder(resolveModel(config.model))
      ? fitFor(retrieval, config, hooks, o)
      : fitFor(captioning, config, hooks, o));
  } catch (error) {
    if (error instanceof RankError && o.world!.rank > 0) await untilEnded(o.world!, hooks);
    throw error;
  }
}

/**
 * Waits until rank 0, which has the same error, has saved what there is, reported it, and ends the job. A signal that was raised before the
 * error does not end the wait.
 */
const untilEnded = (world: World, { signal }: FitHooks) =>
  Promise.race([
    world.barrier(),
    new Promise<void>((resolve) => {
      signal?.addEventListener('abort', () => resolve(), { once: true }); // the launcher's SIGTERM
    }),
  ]);

async function fitFor<K extends Kind>(
  objective: Objective<K>,
  config: FitConfig,
  given: FitHooks,
  { world = alone, generate = generateCaptions, onPlanned }: FitOptions,
): Promise<FitResult> {
  const hooks = world.rank === 0 ? given : silent(given);
  const lock = runLock();
  const held: (() => Promise<void>)[] = [];
  try {
    const planned = await plan(objective, config, hooks, world.size);
    const dir = planned.config.output_dir;
    if (hooks.resume && world.rank === 0) await onDisk(dir, () => lock.take(dir));
    if (world.rank === 0) await onPlanned?.(planned);
    const opened = await open(planned, hooks, { objective, world, generate });
    try {
      const placed = await onDisk(dir, async () => {
        const cached = await cache(opened, hooks, held);
        return cached && place(cached, lock, config.output_dir, hooks);
      });
      if (!placed) return { ...stopped(opened), resume: undefined };
      return await onDisk(placed.config.output_dir, () => trainAndJudge(placed, hooks));
    } finally {
      dispose(opened.model);
    }
  } finally {
    for (const release of held) await release();
    await lock.release();
  }
}

/** Finds a free folder and checks data and texts, before anything large is loaded. */
async function plan<K extends Kind>(
  objective: Objective<K>,
  given: FitConfig,
  hooks: FitHooks,
  processes: number,
): Promise<Planned> {
  const output_dir = await chooseRunFolder(given.output_dir, hooks);
  const prepared = await objective.prepare({ ...given, output_dir }, hooks);
  const { config, data } = prepared;
  const final = finalSplit(config, data);
  for (const reason of unlikelyToLearn(config, runSize(config, { data, final }, processes)))
    hooks.onMessage?.(`warning: ${reason}`);
  return { ...prepared, final };
}

function runSize(
  config: FitConfig,
  { data, final }: Pick<Planned, 'data' | 'final'>,
  processes: number,
): RunSize {
  const { totalSteps, perEpoch } = trainOptions(config, data.train.examples.length, processes);
  const pictures = (set: Dataset) => countsOf(set.examples).pictures;
  return {
    steps: totalSteps,
    stepsPerEpoch: perEpoch,
    train: pictures(data.train),
    validation: data.validation && pictures(data.validation),
    final: final && pictures(final.dataset),
  };
}

/** Starts the backend, finds the checkpoint to resume from, and loads the model. Nothing is written yet. */
async function open<K extends Kind>(
  planned: Planned,
  hooks: FitHooks,
  { objective, world, generate }: Pick<Opened<K>, 'objective' | 'world' | 'generate'>,
): Promise<Opened<K>> {
  const { config: asked, data } = planned;
  const say = hooks.onMessage ?? (() => undefined);
  const backend = await useBackend(asked.backend, { precision: asked.precision });
  const config = { ...asked, precision: backend.precision };
  say(`backend: ${backend.name} (${backend.tried.at(-1)?.why}), precision ${config.precision}`);
  const { examples } = data.train;
  const shaping = await objective.shaping(config, world.size); // before the processes exchange anything
  const images = config.cache_features ? await hashImages(examples, world) : undefined;
  const identity = await fromFirst(world, () =>
    runIdentity(config, examples, backend.name, world.size, images, shaping, hooks),
  );
  const resumeFrom = hooks.resume
    ? await checkpointToResume(config.output_dir, identity, say, images)
    : undefined;
  const own = { generate: divided(world, generate), backend, images, identity, resumeFrom };
  const run = { ...planned, objective, config, world, ...own };
  const loaded = await objective.load(run, hooks);
  const { smoothing } = loaded;
  return {
    ...run,
    ...loaded,
    identity: { ...identity, ...(smoothing && { smoothing: smoothingDigest(smoothing) }) },
  };
}

/** Computes the features of the frozen parts once, each rank its share, and the base's texts. Returns undefined after an abort. */
async function cache<K extends Kind>(
  run: Opened<K>,
  hooks: FitHooks,
  held: (() => Promise<void>)[],
): Promise<Cached<K> | undefined> {
  const { objective, world, config } = run;
  const stopping = () => world.any(hooks.signal?.aborted ?? false);
  if (await stopping()) return undefined;
  const caches = await unlessStopped(hooks, () => objective.caches(run, hooks, held));
  if (await stopping()) return undefined; // the shares of all ranks are there now
  const cached = { ...run, ...caches! };
  if (!config.controls) return cached;
  const before = await unlessStopped(hooks, () => objective.before(cached, hooks));
  return (await stopping()) ? undefined : { ...cached, before };
}

/** The run folder that rank 0 makes. Its name may change: see `claimRunFolder`. */
async function place<K extends Kind>(
  run: Cached<K>,
  lock: RunLock,
  wanted: string,
  hooks: FitHooks,
): Promise<Placed<K>> {
  const output_dir = await fromFirst(run.world, () => makeFolder(run, lock, wanted, hooks));
  return { ...run, config: { ...run.config, output_dir } };
}

/** Makes the run folder with config.yaml and environment.json. */
async function makeFolder<K extends Kind>(
  run: Cached<K>,
  lock: RunLock,
  wanted: string,
  { resume, ifExists, command }: FitHooks,
): Promise<string> {
  const { config, backend } = run;
  if (resume) await writeConfig(config.output_dir, config);
  const output_dir = resume ? config.output_dir : await claimRunFolder(config, lock, { wanted, ifExists });
  if (run.images && !run.resumeFrom) await writeImageList(output_dir, run.images);
  if (run.smoothing && !run.resumeFrom)
    await writeRunSmoothing(output_dir, run.smoothing, run.trainables.keys());
  await writeEnvironment(output_dir, { trainer: version(), backend, command });
  return output_dir;
}

function version(): string {
  return (createRequire(import.meta.url)('../package.json') as { version: string }).version;
}

async function trainAndJudge<K extends Kind>(run: Placed<K>, hooks: FitHooks): Promise<FitResult> {
  const { state, interrupted, ended } = await trainRun(run, hooks);
  if (interrupted) return stopped(run, state);
  const trained = { ...stopped(run, state), interrupted: false, resume: undefined, ended };
  const { world, objective } = run;
  const saved = world.rank === 0 ? await objective.save(run) : undefined;
  if (saved !== undefined) hooks.onMessage?.(`saved ${saved}`);
  const final = await unlessStopped(hooks, () => objective.final(run, hooks));
  if (await world.any(hooks.signal?.aborted ?? false)) return { ...stopped(run, state), saved };
  if (world.rank > 0) return trained;
  const { verdict, next } = await writeResults(run, state, final, hooks);
  const report = await writeReport(run.config.output_dir);
  return { ...trained, saved, report, table: final?.table, figures: final?.figures, verdict, next };
}

/** Runs `work` and returns its result, or undefined if the signal of any rank stops it. */
async function unlessStopped<T>({ signal }: FitHooks, work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof StoppedElsewhere || (signal?.aborted && error === signal.reason)) return undefined;
    throw error;
  }
}

function stopped<K extends Kind>({ config: { output_dir }, line }: Opened<K>, state?: TrainState): FitResult {
  return {
    output_dir,
    interrupted: true,
    resume: `npx blip2 fit ${join(output_dir, 'config.yaml')} --resume`,
    steps: state?.step ?? 0,
    train_seconds: state?.seconds ?? 0,
    trainable: line,
    best: state?.best,
  };
}

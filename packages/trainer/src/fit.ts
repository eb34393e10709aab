/** Fine-tuning from a config to a run folder: load, choose what trains, cache what is frozen, train, judge, save. */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { loadModel } from '@blip2/blip2';
import { loadProcessor } from '@blip2/data-captions';
import { countParameters, dispose, useBackend } from '@blip2/nn';
import { applyPreset, trainable, trainableLine } from '@blip2/peft-lora';
import type { FitConfig } from './config';
import { parseConfig } from './config';
import type { ResultsTable } from './evaluation';
import { dataLine, loadData } from './fit-data';
import type { FitParts } from './fit-final';
import { EVALUATION, finalCaptions, finalEvaluation, saveResult } from './fit-final';
import type { RunHooks } from './fit-run';
import { trainSession } from './fit-run';
import type { Session } from './fit-session';
import { makeCache } from './fit-session';
import { writeReport } from './report';
import type { RunResults } from './report';
import type { IfExists } from './run-folder';
import { chooseRunFolder, writeConfig, writeEnvironment, writeJson, writeJsonl } from './run-folder';
import type { TrainState } from './train';

export interface FitHooks extends RunHooks {
  /** what to do when output_dir is taken: an error (default), or the next free DIR-2, DIR-3… */
  ifExists?: IfExists;
  /** the command line of this run, for environment.json */
  command?: string;
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
  /** adapter/ or model/ */
  saved?: string;
  table?: ResultsTable;
  report?: string;
}

/**
 * Runs a fine-tuning. Messages, progress and rows go to the hooks; nothing is printed.
 * @throws ConfigError, DataError, WeightsError, ModelError, AdapterError before anything is written;
 * RunFolderError for a folder that cannot be used; NonFiniteError when training breaks down
 */
export async function fit(config: FitConfig, hooks: FitHooks = {}, parts = EVALUATION): Promise<FitResult> {
  const session = await openSession(parseConfig(config), hooks);
  try {
    return await runSession(session, hooks, parts);
  } finally {
    dispose(session.model.params);
  }
}

interface OpenSession extends Session {
  /** the trainable-parameters line */
  line: string;
  /** what environment.json says beside the machine */
  environment: Record<string, unknown>;
}

/** Everything is loaded and checked; the run folder is not made yet. */
async function openSession(given: FitConfig, hooks: FitHooks): Promise<OpenSession> {
  const dir = await chooseRunFolder(given.output_dir, hooks);
  const config = { ...given, output_dir: dir };
  const data = await loadData(config);
  hooks.onMessage?.(dataLine(data));
  const processor = await loadProcessor(config.model);
  const report = await useBackend(config.backend);
  hooks.onMessage?.(`backend: ${report.name}`);
  const base = await loadModel(config.model, {
    onProgress: ({ loaded, total }) => hooks.onPhase?.({ name: 'loading model', done: loaded, total }),
  });
  const params = applyPreset(base.params, config.preset, config.lora, config.seed);
  const trainables = trainable(params);
  const line = trainableLine(countParameters(trainables.values()), countParameters(params));
  hooks.onMessage?.(line);
  const environment = { trainer: version(), backend: report, command: hooks.command };
  const model = { config: base.config, params };
  return { config, dir, backend: report.name, processor, data, model, trainables, line, environment };
}

function version(): string {
  return (createRequire(import.meta.url)('../package.json') as { version: string }).version;
}

async function runSession(session: OpenSession, hooks: FitHooks, parts: FitParts): Promise<FitResult> {
  const { config, dir } = session;
  const before = await prepare(session, hooks, parts);
  if (hooks.signal?.aborted) return { ...stopped(session), resume: undefined };
  await writeConfig(dir, config); // with a cache, every image has been read by now
  await writeEnvironment(dir, session.environment);
  const { state, interrupted } = await trainSession(session, parts, hooks);
  if (interrupted) return stopped(session, state);

  const saved = await saveResult(session);
  hooks.onMessage?.(`saved ${saved}`);
  if (hooks.signal?.aborted) return { ...stopped(session, state), saved };
  const final = await finalEvaluation(session, parts, hooks, before);
  await writeJson(join(dir, 'results.json'), results(session, state, final?.table));
  if (final) await writeJsonl(join(dir, 'samples.jsonl'), final.samples);
  const report = await writeReport(dir);
  const { step, seconds, best } = state;
  const what = { steps: step, train_seconds: seconds, best, table: final?.table, trainable: session.line };
  return { output_dir: config.output_dir, interrupted: false, saved, report, ...what };
}

/** The cache, and what the base says before it learns; a raised signal cuts it short. */
async function prepare(session: Session, hooks: FitHooks, parts: FitParts): Promise<string[] | undefined> {
  try {
    session.cache = await makeCache(session, hooks);
    if (session.config.controls)
      return await finalCaptions(session, parts, hooks, 'captioning before training');
  } catch (error) {
    if (!hooks.signal?.aborted) throw error;
  }
  return undefined;
}

function stopped({ dir, line }: OpenSession, state?: TrainState): FitResult {
  return {
    output_dir: dir,
    interrupted: true,
    resume: `blip2 fit ${join(dir, 'config.yaml')} --resume`,
    steps: state?.step ?? 0,
    train_seconds: state?.seconds ?? 0,
    trainable: line,
    best: state?.best,
  };
}

function results(session: OpenSession, state: TrainState, table: ResultsTable | undefined): RunResults {
  const { train, validation, test } = session.data;
  return {
    table,
    trainable: session.line,
    data: {
      train: train.examples.length,
      validation: validation?.examples.length,
      test: test?.examples.length,
    },
    steps: state.step,
    train_seconds: state.seconds,
    backend: session.backend,
  };
}

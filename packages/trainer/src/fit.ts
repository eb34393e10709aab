/** Fine-tuning from a config to a run folder: load, choose what trains, cache what is frozen, train, judge, save. */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { adapterBase, textIds } from '@blip2/blip2';
import { loadConfig, loadFolder } from '@blip2/blip2/node';
import type { Blip2, Blip2Params } from '@blip2/blip2';
import { loadProcessor } from '@blip2/data-captions';
import { countParameters, dispose, flatten } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { applyPreset, presetOf, trainable, trainableLine } from '@blip2/peft-lora';
import { resolveModel } from '@blip2/weights/node';
import type { FitConfig } from './config';
import type { Figures, ResultsTable } from './evaluation';
import { generateCaptions } from './evaluation';
import { makeCache } from './features/run-cache';
import { dataLine, loadData } from './data/open';
import { onDisk } from './run/disk';
import type { FinalEvaluation } from './evaluation/final';
import { finalEvaluation, finalTexts, saveResult } from './evaluation/final';
import { openLogs } from './run/logs';
import type { RunHooks } from './run/training';
import { checkpointToResume } from './run/resume';
import { checkLayerDecay } from './train/layer-decay';
import { trainSession } from './run/training';
import type { Session } from './data/batches';
import { checkTexts } from './data/batches';
import { runIdentity } from './run/identity';
import { writeReport } from './report';
import type { RunResults } from './report';
import { chooseRunFolder, writeJson, writeJsonl } from './run/folder';
import type { Ending, TrainState } from './train/train';

export interface FitHooks extends RunHooks {
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
  /** why training ended, when it did */
  ended?: Ending;
  /** adapter/ or model/ */
  saved?: string;
  table?: ResultsTable;
  figures?: Figures;
  report?: string;
}

/**
 * Runs a fine-tuning. Messages, progress and rows go to the hooks; nothing is printed.
 * @param config what `parseConfig` returned; it is not checked again
 * @throws ConfigError, DataError, WeightsError, ModelError, AdapterError before anything is written;
 * RunFolderError for a folder that cannot be used; NonFiniteError when training breaks down
 */
export async function fit(
  config: FitConfig,
  hooks: FitHooks = {},
  generate = generateCaptions,
): Promise<FitResult> {
  const session = await openSession(config, hooks, generate);
  try {
    return await onDisk(() => session.dir, () => runSession(session, hooks)); // prettier-ignore
  } finally {
    dispose(session.model.params);
  }
}

interface OpenSession extends Session {
  /** the trainable-parameters line */
  line: string;
}

/** Everything is loaded and checked; the run folder is not made yet. */
async function openSession(
  given: FitConfig,
  hooks: FitHooks,
  generate: typeof generateCaptions,
): Promise<OpenSession> {
  const dir = await chooseRunFolder(given.output_dir, hooks);
  const asked = { ...given, output_dir: dir };
  const data = await loadData(asked, hooks);
  hooks.onMessage?.(dataLine(data));
  const sizes = { config: await loadConfig(resolveModel(asked.model)) };
  const processor = await loadProcessor(resolveModel(asked.model), textIds(sizes.config));
  await checkTexts({ config: asked, processor, model: sizes }, data, hooks);
  const report = await useBackend(asked.backend, { precision: asked.precision });
  const config = { ...asked, precision: report.precision };
  hooks.onMessage?.(`backend: ${report.name} (${report.tried.at(-1)?.why}), precision ${config.precision}`);
  const identity = await runIdentity(config, data.train.examples, report.name);
  const say = hooks.onMessage ?? (() => undefined);
  const resumeFrom = hooks.resume ? await checkpointToResume(dir, identity, say) : undefined;
  const { model, trainables, line } = await openModel(config, hooks);
  const environment = { trainer: version(), backend: report, command: hooks.command };
  const where = { dir, wanted: given.output_dir, identity, resumeFrom, generate };
  return { config, ...where, backend: report.name, processor, data, model, trainables, line, environment };
}

/** The base with what is to train in it. */
async function openModel(config: FitConfig, hooks: FitHooks) {
  const base = await loadFolder(resolveModel(config.model), {
    onProgress: ({ loaded, total }) => hooks.onPhase?.({ name: 'loading model', done: loaded, total }),
  });
  let { params } = base;
  try {
    params = choose(base, config);
    const trainables = trainable(params);
    checkLayerDecay(config.lr_layer_decay, trainables.keys());
    const line = trainableLine(countParameters(trainables.values()), countParameters(params));
    hooks.onMessage?.(line);
    return { model: { config: base.config, params }, trainables, line };
  } catch (error) {
    dispose(params);
    throw error;
  }
}

/** The tree in which preset and also_train are Variables. What its Variables replace is freed: it would be a second copy of every trained weight. */
function choose(base: Blip2, config: FitConfig): Blip2Params {
  const { lora, patterns } = presetOf(config.preset);
  const whole = [...patterns, ...(config.also_train ?? [])];
  const params = applyPreset(
    base.params,
    { lora, patterns: whole },
    config.lora,
    config.seed,
    adapterBase(base.config),
  );
  const kept = new Set(flatten(params).values());
  for (const leaf of flatten(base.params).values()) if (!kept.has(leaf)) dispose(leaf);
  return params;
}

function version(): string {
  return (createRequire(import.meta.url)('../package.json') as { version: string }).version;
}

async function runSession(session: OpenSession, hooks: FitHooks): Promise<FitResult> {
  const before = await unlessStopped(hooks, () => prepare(session, hooks));
  if (hooks.signal?.aborted) return { ...stopped(session), resume: undefined };
  const { state, interrupted, ended } = await trainSession(session, hooks);
  if (interrupted) return stopped(session, state);

  const { dir } = session;
  const saved = await saveResult(session);
  hooks.onMessage?.(`saved ${saved}`);
  const final = await unlessStopped(hooks, () => finalEvaluation(session, hooks, before));
  if (hooks.signal?.aborted) return { ...stopped(session, state), saved };
  await writeResults(session, state, final, hooks);
  const report = await writeReport(dir);
  return {
    output_dir: dir,
    interrupted: false,
    ...{ steps: state.step, train_seconds: state.seconds, best: state.best, ended },
    ...{ trainable: session.line, saved, report },
    ...{ table: final?.table, figures: final?.figures },
  };
}

/** results.json, samples.jsonl, and the last row of metrics.jsonl. */
async function writeResults(
  session: OpenSession,
  state: TrainState,
  final: FinalEvaluation | undefined,
  hooks: FitHooks,
): Promise<void> {
  const { dir, config } = session;
  if (final) {
    const row = { step: state.step, ...final.row };
    await (await openLogs(dir, config)).metrics(row);
    hooks.onMetrics?.(row);
    await writeJsonl(join(dir, 'samples.jsonl'), final.samples);
  }
  await writeJson(join(dir, 'results.json'), results(session, state, final));
}

/** The cache, and what the base says before it learns. */
async function prepare(session: Session, hooks: FitHooks): Promise<string[] | undefined> {
  session.cache = await makeCache(session, hooks);
  if (!session.config.controls) return undefined;
  return finalTexts(session, hooks, 'captioning before training');
}

/** Work that a raised signal cuts short. */
async function unlessStopped<T>({ signal }: FitHooks, work: () => Promise<T>): Promise<T | undefined> {
  try {
    signal?.throwIfAborted();
    return await work();
  } catch (error) {
    if (signal?.aborted && error === signal.reason) return undefined;
    throw error;
  }
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

function results(session: OpenSession, state: TrainState, final: FinalEvaluation | undefined): RunResults {
  const { train, validation, test } = session.data;
  return {
    table: final?.table,
    figures: final?.figures,
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

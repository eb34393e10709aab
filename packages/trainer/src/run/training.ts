/** Training inside a run folder: metrics, checkpoints, resuming, the best weights. */
import type { Example } from '@blip2/data-captions';
import {
  checkpointDir,
  removeLeftovers,
  restoreCheckpoint,
  restoreTrainables,
  rotateCheckpoints,
  writeCheckpoint,
} from './checkpoint';
import type { FitConfig } from '../config';
import { greaterIsBetter } from '../config';
import { figuresOf, namedFigures, prefixed, referenceOf, scoreCaptions } from '../evaluation';
import { lastCheckpoint } from './disk';
import { saveResult } from '../evaluation/final';
import type { RunLogs } from './logs';
import { openLogs } from './logs';
import type { CacheHooks, RunBatch, Session } from '../data/batches';
import { textsOf } from '../data/batches';
import { evaluateLoss, locateBad, trainOptions, trainParts } from '../model/parts';
import { disposeAdamW } from '../train/optimizer';
import type { IfExists } from './folder';
import { claimRunFolder, RunFolderError, writeConfig, writeEnvironment } from './folder';
import { spread } from '../report/spread';
import type { Progress, TrainHooks, TrainResult, TrainState } from '../train/train';
import { initialState, train } from '../train/train';
import type { TrainParts } from '../train/step';
import { NonFiniteError } from '../train/step';

export interface RunHooks extends CacheHooks {
  resume?: boolean;
  /** what to do when output_dir is taken: an error (default), or the next free DIR-2, DIR-3… */
  ifExists?: IfExists;
  onProgress?(progress: Progress): void;
  /** every row of metrics.jsonl as it is written */
  onMetrics?(row: Record<string, unknown>): void;
}

interface Run {
  session: Session;
  parts: TrainParts<RunBatch>;
  logs: RunLogs;
}

/**
 * Makes the run folder (its name may change, see `claimRunFolder`), trains to the end or to the signal, and leaves the best
 * weights in the session if the config says so.
 */
export async function trainSession(session: Session, hooks: RunHooks): Promise<TrainResult> {
  await placeRun(session, hooks);
  const { config, data, dir } = session;
  const { perEpoch, ...options } = trainOptions(config, data.train.examples.length);
  const run: Run = {
    session,
    parts: trainParts(session, options.totalSteps),
    logs: await openLogs(dir, config),
  };
  try {
    const state = await startState(run, hooks);
    const result = await train(run.parts, options, loopHooks(run, hooks, perEpoch), state).catch((error) =>
      keepGoodWeights(run, state, error),
    );
    hooks.onMessage?.(loadingLine(state));
    if (result.ended && result.ended !== 'last step')
      hooks.onMessage?.(`ended after step ${state.step}: ${result.ended}`);
    if (!result.interrupted) await takeBest(session, state, hooks);
    return result;
  } finally {
    disposeAdamW(run.parts.optimizer);
  }
}

/** How busy the data kept the model. */
function loadingLine({ seconds, loading_seconds = 0 }: TrainState): string {
  const share = (100 * loading_seconds) / Math.max(seconds, 1e-9);
  return `waiting for data: ${share.toFixed(1)} % of the ${seconds.toFixed(1)} s in updates`;
}

/** The folder with config.yaml and environment.json. With a cache, every image has been read by now. */
async function placeRun(session: Session, { resume, ifExists }: RunHooks): Promise<void> {
  const { config, environment, wanted } = session;
  if (resume) await writeConfig(session.dir, config);
  else session.dir = await claimRunFolder(config, { wanted, ifExists });
  session.config = { ...config, output_dir: session.dir };
  await writeEnvironment(session.dir, environment);
}

/** A new run's state, or that of the checkpoint it goes on from. */
async function startState({ session, parts, logs }: Run, hooks: RunHooks): Promise<TrainState> {
  const { dir, resumeFrom: found } = session;
  if (!hooks.resume) return initialState();
  await removeLeftovers(dir);
  await logs.cutTo(found?.logs ?? {});
  if (!found) return initialState();
  await restoreCheckpoint(found, session.trainables, parts.optimizer);
  hooks.onMessage?.(`resumed at step ${found.train.step} from ${found.dir}`);
  return found.train;
}

function loopHooks(run: Run, hooks: RunHooks, perEpoch: number): TrainHooks<RunBatch> {
  const { session, logs } = run;
  const record = async (row: Record<string, unknown>) => {
    await logs.metrics(row);
    hooks.onMetrics?.(row);
  };
  return {
    signal: hooks.signal,
    onProgress: hooks.onProgress,
    onLog: (row) => record({ ...row }),
    evaluate: session.data.validation && ((state) => evaluate(session, state, perEpoch, record)),
    sample: ({ step }) => sample(run, step),
    save: async (state) => void (await save(run, state)),
    locate: (batches, keys, grads) => locateBad(session, batches, keys, grads),
  };
}

/** One evaluation on the validation data; the answer is what the best model has least of. */
async function evaluate(
  session: Session,
  { step }: TrainState,
  perEpoch: number,
  record: (row: Record<string, unknown>) => Promise<void>,
): Promise<number> {
  const { config, data } = session;
  const begin = performance.now();
  const { examples } = data.validation!;
  const row: Record<string, number> = { step, epoch: step / perEpoch };
  row.eval_loss = await evaluateLoss(session, data.validation!);
  if (config.predict_with_generate) Object.assign(row, await generatedMetrics(session, examples));
  row.eval_seconds = (performance.now() - begin) / 1000;
  await record(row);
  return ranking(config, row);
}

/** What the texts that the model generates now are worth, as eval_exact, eval_cider_d, eval_accuracy… */
async function generatedMetrics(session: Session, examples: Example[]): Promise<Record<string, number>> {
  const { task, parts_pattern } = session.config;
  const texts = await textsOf(session, examples);
  const references = examples.map((example) => referenceOf(example, task));
  const { exact, parts } = scoreCaptions(texts, references, parts_pattern);
  return prefixed('eval_', { exact, ...parts, ...namedFigures(figuresOf(task, examples, texts)) });
}

/** The metric that decides which weights are best, turned so that smaller is better. */
function ranking(config: FitConfig, row: Record<string, number>): number {
  const { metric_for_best_model: name, greater_is_better = greaterIsBetter(name) } = config;
  return greater_is_better ? -row[name] : row[name];
}

/** What the model says now about a few images, always the same. */
async function sample({ session, logs }: Run, step: number): Promise<void> {
  const { config, data } = session;
  const examples = spread((data.validation ?? data.train).examples, config.num_samples);
  const texts = await textsOf(session, examples);
  const rows = examples.map((example, i) => ({
    step,
    image: example.image,
    ...(example.question === undefined ? {} : { question: example.question }),
    reference: referenceOf(example, config.task),
    text: texts[i],
  }));
  await logs.samples(rows);
}

async function save({ session, parts, logs }: Run, state: TrainState): Promise<string> {
  const { dir, identity, trainables, config } = session;
  const kept = (await lastCheckpoint(dir)) ?? 'There is none yet';
  try {
    const content = { train: state, identity, logs: await logs.flush() };
    const made = await writeCheckpoint(dir, trainables, parts.optimizer, content);
    await rotateCheckpoints(dir, config.save_total_limit, state.best?.step, state.step);
    return made;
  } catch (error) {
    throw new RunFolderError(
      `${checkpointDir(dir, state.step)}: the checkpoint cannot be written: ${(error as Error).message}. ` +
        `${kept}; make room, or make the folder writable, and continue with --resume.`,
      { cause: error },
    );
  }
}

/** After a step that was not finite, the weights before it are still good: they are kept, and the error says where. */
async function keepGoodWeights(run: Run, state: TrainState, error: unknown): Promise<never> {
  if (!(error instanceof NonFiniteError) || state.step === 0) throw error;
  const dir =
    state.saved === state.step ? checkpointDir(run.session.dir, state.step) : await save(run, state);
  error.message += ` The weights before it are in ${dir}. A lower learning_rate or a longer warm-up usually helps.`;
  throw error;
}

/**
 * Puts the weights of the best evaluation back, when they are not the last ones.
 * @throws RunFolderError when they cannot be read; the last weights have been saved then
 */
async function takeBest(session: Session, state: TrainState, hooks: RunHooks): Promise<void> {
  const { config, dir, trainables } = session;
  if (!config.load_best_model_at_end || !state.best || state.best.step === state.step) return;
  const { step } = state.best;
  try {
    await restoreTrainables(checkpointDir(dir, step), trainables);
  } catch (error) {
    const saved = await saveResult(session);
    throw new RunFolderError(
      `${checkpointDir(dir, step)}: the weights of the best evaluation cannot be read: ${(error as Error).message}. ` +
        `The weights after the last step (${state.step}) were saved in ${saved} instead; see how they do with: blip2 evaluate`,
      { cause: error },
    );
  }
  hooks.onMessage?.(`best evaluation: step ${step} of ${state.step}; its weights are the result`);
}

/** Training inside a run folder: metrics, checkpoints, resuming, the best weights. */
import { existsSync } from 'node:fs';
import type { Checkpoint, RunIdentity } from './checkpoint';
import {
  checkpointDir,
  restoreNewest,
  restoreTrainables,
  rotateCheckpoints,
  writeCheckpoint,
} from './checkpoint';
import { referenceOf } from './evaluation';
import type { FitParts } from './fit-final';
import type { CacheHooks, RunBatch, Session } from './fit-session';
import { captionOptions } from './fit-session';
import { evaluateLoss, locateBad, trainOptions, trainParts } from './fit-train';
import { differences, runIdentity } from './identity';
import { disposeAdamW } from './optimizer';
import type { MetricsLog } from './run-folder';
import { metricsLog, RunFolderError, writeConfig, writeEnvironment } from './run-folder';
import type { Progress, TrainHooks, TrainState } from './train';
import { initialState, train } from './train';
import type { TrainParts } from './train-step';
import { NonFiniteError } from './train-step';

export interface RunHooks extends CacheHooks {
  resume?: boolean;
  onProgress?(progress: Progress): void;
  /** every row of metrics.jsonl as it is written */
  onMetrics?(row: Record<string, unknown>): void;
}

interface Run {
  session: Session;
  parts: TrainParts<RunBatch>;
  log: MetricsLog;
  identity: RunIdentity;
}

/** Makes the run folder, trains to the end or to the signal, and leaves the best weights in the session if the config says so. */
export async function trainSession(
  session: Session,
  judges: FitParts,
  hooks: RunHooks,
): Promise<{ state: TrainState; interrupted: boolean }> {
  const { config, data, backend, dir } = session;
  const { perEpoch, ...options } = trainOptions(config, data.train.examples.length);
  const identity = await runIdentity(config, data.train.examples, backend);
  const run: Run = {
    session,
    parts: trainParts(session, options.totalSteps),
    log: metricsLog(dir),
    identity,
  };
  try {
    const state = await startState(run, hooks);
    await writeConfig(dir, config); // with a cache, every image has been read; a resumed run is the same run
    await writeEnvironment(dir, session.environment);
    const result = await train(run.parts, options, loopHooks(run, judges, hooks, perEpoch), state).catch(
      (error) => keepGoodWeights(run, state, error),
    );
    if (!result.interrupted) await takeBest(session, state, hooks);
    return result;
  } finally {
    disposeAdamW(run.parts.optimizer);
  }
}

/** A new run's state, or that of the newest good checkpoint. */
async function startState(run: Run, hooks: RunHooks): Promise<TrainState> {
  if (!hooks.resume) return initialState();
  const { session, parts, log, identity } = run;
  const say = hooks.onMessage ?? (() => undefined);
  const onSkip = (dir: string, why: string) => say(`skipped damaged checkpoint ${dir}: ${why}`);
  const found = await restoreNewest(session.dir, session.trainables, parts.optimizer, onSkip, (checkpoint) =>
    refuseOther(checkpoint, identity),
  );
  await log.cutTo(found?.metrics_bytes ?? 0);
  if (!found) {
    say('no checkpoint to resume from; starting at the beginning');
    return initialState();
  }
  say(`resumed at step ${found.train.step} from ${found.dir}`);
  if (found.identity.backend !== identity.backend)
    say(
      `backend was ${found.identity.backend}, is ${identity.backend}: results will agree, but not bit by bit`,
    );
  const { best } = found.train;
  if (best && !existsSync(checkpointDir(session.dir, best.step))) delete found.train.best;
  return found.train;
}

/** @throws RunFolderError when the run would not be the same run */
function refuseOther(checkpoint: Checkpoint, now: RunIdentity): void {
  const changed = differences(checkpoint.identity, now);
  if (changed.length === 0) return;
  throw new RunFolderError(
    `${checkpoint.dir}: cannot resume, because the run has changed:\n  ${changed.join('\n  ')}\n` +
      'Set these back, or start a new run in another folder.',
  );
}

function loopHooks(run: Run, judges: FitParts, hooks: RunHooks, perEpoch: number): TrainHooks<RunBatch> {
  const { session, log } = run;
  const record = async (row: Record<string, unknown>) => {
    await log.append(row);
    hooks.onMetrics?.(row);
  };
  return {
    signal: hooks.signal,
    onProgress: hooks.onProgress,
    onLog: (row) => record({ ...row }),
    evaluate: session.data.validation && ((state) => evaluate(session, judges, state, perEpoch, record)),
    save: async (state) => void (await save(run, state)),
    locate: (batches, keys, grads) => locateBad(session, batches, keys, grads),
  };
}

/** One evaluation on the validation data; the answer is what the best model has least of. */
async function evaluate(
  session: Session,
  judges: FitParts,
  { step }: TrainState,
  perEpoch: number,
  record: (row: Record<string, unknown>) => Promise<void>,
): Promise<number> {
  const { config, model, processor } = session;
  const begin = performance.now();
  const { examples } = session.data.validation!;
  const row: Record<string, number> = { step, epoch: step / perEpoch };
  row.eval_loss = await evaluateLoss(session, session.data.validation!);
  if (config.predict_with_generate) {
    const texts = await judges.generateCaptions(
      model,
      processor,
      examples,
      captionOptions(session, examples),
    );
    const references = examples.map((example) => referenceOf(example, config.task));
    const score = judges.scoreCaptions(texts, references, config.parts_pattern);
    row.eval_exact = score.exact;
    for (const [name, share] of Object.entries(score.parts)) row[`eval_${name}`] = share;
  }
  row.eval_seconds = (performance.now() - begin) / 1000;
  await record(row);
  return config.metric_for_best_model === 'eval_exact' ? -row.eval_exact : row.eval_loss;
}

async function save({ session, parts, log, identity }: Run, state: TrainState): Promise<string> {
  const content = { train: state, identity, metrics_bytes: await log.bytes() };
  const dir = await writeCheckpoint(session.dir, session.trainables, parts.optimizer, content);
  await rotateCheckpoints(session.dir, session.config.save_total_limit, state.best?.step, state.step);
  return dir;
}

/** After a step that was not finite, the weights before it are still good: they are kept, and the error says where. */
async function keepGoodWeights(run: Run, state: TrainState, error: unknown): Promise<never> {
  if (!(error instanceof NonFiniteError) || state.step === 0) throw error;
  const dir =
    state.saved === state.step ? checkpointDir(run.session.dir, state.step) : await save(run, state);
  error.message += ` The weights before it are in ${dir}. A lower learning_rate or a longer warm-up usually helps.`;
  throw error;
}

/** Puts the weights of the best evaluation back, when they are not the last ones. */
async function takeBest(session: Session, state: TrainState, hooks: RunHooks): Promise<void> {
  if (!session.config.load_best_model_at_end || !state.best || state.best.step === state.step) return;
  await restoreTrainables(checkpointDir(session.dir, state.best.step), session.trainables);
  hooks.onMessage?.(`best evaluation: step ${state.best.step} of ${state.step}; its weights are the result`);
}

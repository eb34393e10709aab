/** Training inside a run folder: metrics, checkpoints, resuming, the best weights. */
import { checkStoredFiles } from '@blip2/nn';
import { validate } from '../evaluation/validation';
import type { FitHooks } from '../hooks';
import { locateBad, trainOptions, trainParts } from '../model/parts';
import type { Kind } from '../objective';
import type { Placed } from '../stages';
import { disposeAdamW, moments } from '../train/optimizer';
import type { TrainParts } from '../train/step';
import { NonFiniteError, requireFinite } from '../train/step';
import type { TrainHooks, TrainResult, TrainState } from '../train/train';
import { initialState, train } from '../train/train';
import {
  checkpointDir,
  readTrainables,
  removeLeftovers,
  restoreCheckpoint,
  rotateCheckpoints,
  writeCheckpoint,
} from './checkpoint';
import { lastCheckpoint } from './disk';
import { RunFolderError } from './folder';
import type { RunLogs } from './logs';
import { noLogs, openLogs } from './logs';

interface Course<K extends Kind> {
  run: Placed<K>;
  parts: TrainParts<K['batch']>;
  logs: RunLogs;
}

/** Trains to the end or until the signal, then restores the best weights if the config asks for it. */
export async function trainRun<K extends Kind>(run: Placed<K>, hooks: FitHooks): Promise<TrainResult> {
  const { config, data, world } = run;
  const { perEpoch, ...options } = trainOptions(config, data.train.examples.length, world.size);
  const parts = trainParts(run, options.totalSteps);
  const logs = world.rank === 0 ? await openLogs(config.output_dir, config) : noLogs;
  const course = { run, parts, logs };
  try {
    const state = await startState(course, hooks);
    const loop = loopHooks(course, hooks, perEpoch);
    if (state.step === 0 && options.sample_steps !== undefined) await loop.sample?.(state);
    const result = await train(parts, options, loop, state).catch((error) =>
      saveOnError(course, hooks, state, error),
    );
    hooks.onMessage?.(loadingLine(state));
    if (run.hidden) hooks.onMessage?.(hiddenLine(run.hidden.counts()));
    if (result.ended && result.ended !== 'last step')
      hooks.onMessage?.(`ended after step ${state.step}: ${result.ended}`);
    if (!result.interrupted) await takeBest(run, state, hooks);
    await requireFinite(state.step, run.trainables);
    return result;
  } finally {
    disposeAdamW(parts.optimizer);
  }
}

/** A message about the share of training time spent waiting for data. */
function loadingLine({ seconds, loading_seconds = 0 }: TrainState): string {
  const share = (100 * loading_seconds) / Math.max(seconds, 1e-9);
  return `waiting for data: ${share.toFixed(1)} % of the ${seconds.toFixed(1)} s in updates`;
}

const hiddenLine = ({ computed, reused }: { computed: number; reused: number }) =>
  `hidden states of images and texts: ${computed.toLocaleString('en')} computed, ${reused.toLocaleString('en')} reused`;

/** The state of a new run, or of the checkpoint that it resumes from. */
async function startState<K extends Kind>(
  { run, parts, logs }: Course<K>,
  hooks: FitHooks,
): Promise<TrainState> {
  const { config, resumeFrom: found, world } = run;
  if (!hooks.resume) return initialState();
  if (world.rank === 0) {
    await removeLeftovers(config.output_dir);
    await logs.cutTo(found?.logs ?? {});
  }
  if (!found) return initialState();
  await restoreCheckpoint(found, run.trainables, parts.optimizer);
  hooks.onMessage?.(`resumed at step ${found.train.step} from ${found.dir}`);
  return found.train;
}

/** The loop's hooks. Every rank takes part in evaluations; only rank 0 writes, and the others wait for it. */
function loopHooks<K extends Kind>(
  course: Course<K>,
  hooks: FitHooks,
  perEpoch: number,
): TrainHooks<K['batch']> {
  const { run, logs } = course;
  const record = async (row: Record<string, unknown>) => {
    await logs.metrics(row);
    hooks.onMetrics?.(row);
  };
  const first = async (write: () => Promise<unknown>) => {
    if (run.world.rank === 0) await write();
    await run.world.barrier();
  };
  const sample = async (step: number) => {
    const rows = await run.objective.samples(run, step);
    await first(async () => {
      await logs.samples(rows);
      hooks.onSamples?.(rows);
    });
  };
  return {
    signal: hooks.signal,
    onProgress: hooks.onProgress,
    onLog: (row) => first(() => record({ ...row })),
    evaluate: run.data.validation && (({ step }) => validate(run, { step, epoch: step / perEpoch }, record)),
    sample: ({ step }) => sample(step),
    save: (state) => first(() => save(course, hooks, state)),
    locate: (batches, keys, grads) => locateBad(run, batches, keys, grads),
  };
}

/**
 * @throws NonFiniteError for moments that are not finite; Error for a weight file that was rewritten meanwhile; RunFolderError when the
 * checkpoint cannot be written
 */
async function save<K extends Kind>(
  { run, parts, logs }: Course<K>,
  hooks: FitHooks,
  state: TrainState,
): Promise<string> {
  const { identity, trainables, config } = run;
  const dir = config.output_dir;
  checkStoredFiles();
  await requireFinite(state.step, moments(parts.optimizer));
  const kept = (await lastCheckpoint(dir)) ?? 'There is none yet';
  let made: string;
  try {
    const content = { train: state, identity, logs: await logs.flush() };
    made = await writeCheckpoint(dir, trainables, parts.optimizer, content);
  } catch (error) {
    throw new RunFolderError(
      `${checkpointDir(dir, state.step)}: the checkpoint cannot be written: ${(error as Error).message}. ` +
        `${kept}; make room, or make the folder writable, and continue with --resume.`,
      { cause: error },
    );
  }
  await rotateCheckpoints(dir, config.save_total_limit, state.best?.step, state.step).catch(
    ({ message }: Error) =>
      hooks.onMessage?.(
        `an old checkpoint cannot be deleted: ${message}; delete it yourself if you need the space`,
      ),
  );
  return made;
}

/** After an error in the loop, saves a checkpoint of the last whole update and adds to the error where it is. */
async function saveOnError<K extends Kind>(
  course: Course<K>,
  hooks: FitHooks,
  state: TrainState,
  error: unknown,
): Promise<never> {
  const { config, world } = course.run;
  if (!(error instanceof Error) || error instanceof RunFolderError || world.rank > 0) throw error;
  if (error instanceof NonFiniteError) error.message += await afterBreakdown(course, hooks, state, error);
  else if (state.step > 0) {
    const dir = await saveUnlessSaved(course, hooks, state).catch(() => undefined);
    const kept = dir ?? (await lastCheckpoint(config.output_dir));
    error.message += dir
      ? `\nThe weights after step ${state.step} were saved in ${dir}; continue with --resume.`
      : `\nNo checkpoint could be saved after step ${state.step}. ${kept ?? 'There is no earlier one'}.`;
  }
  throw error;
}

/** What is kept when training has broken down, and what to do. */
async function afterBreakdown<K extends Kind>(
  course: Course<K>,
  hooks: FitHooks,
  state: TrainState,
  { weightsAreFinite }: NonFiniteError,
): Promise<string> {
  const advice = 'A lower learning_rate or a longer warm-up usually helps.';
  if (weightsAreFinite)
    return state.step === 0
      ? ''
      : ` The weights before it are in ${await saveUnlessSaved(course, hooks, state)}. ${advice}`;
  const last = await lastCheckpoint(course.run.config.output_dir);
  return ` They were not saved. ${last ?? 'There is no checkpoint from before'}. ${advice}`;
}

/** Returns the folder of the checkpoint of this step. */
async function saveUnlessSaved<K extends Kind>(
  course: Course<K>,
  hooks: FitHooks,
  state: TrainState,
): Promise<string> {
  if (state.saved === state.step) return checkpointDir(course.run.config.output_dir, state.step);
  state.saved = state.step;
  return save(course, hooks, state);
}

/**
 * Restores the weights of the best evaluation, if they are not the last ones.
 * @throws RunFolderError when they cannot be read; the last weights are saved then
 */
async function takeBest<K extends Kind>(run: Placed<K>, state: TrainState, hooks: FitHooks): Promise<void> {
  const { config, trainables, world } = run;
  const dir = config.output_dir;
  if (!config.load_best_model_at_end || !state.best || state.best.step === state.step) return;
  const { step } = state.best;
  const [read] = await Promise.allSettled([readTrainables(checkpointDir(dir, step), trainables)]);
  const failed = await world.any(read.status === 'rejected'); // before any rank has taken them
  if (failed || read.status === 'rejected') {
    const error = read.status === 'rejected' ? (read.reason as Error) : undefined;
    if (world.rank > 0) await world.barrier(); // until rank 0 has saved the weights and ends the job
    const saved = await run.objective.save(run);
    throw new RunFolderError(
      `${checkpointDir(dir, step)}: the weights of the best evaluation cannot be read: ${error?.message ?? 'by another process'}. ` +
        `The weights after the last step (${state.step}) were saved in ${saved} instead; see how they do with: blip2 evaluate`,
      { cause: error },
    );
  }
  read.value();
  hooks.onMessage?.(`best evaluation: step ${step} of ${state.step}; its weights are the result`);
}

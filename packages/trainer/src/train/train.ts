/**
 * The training loop. It does not depend on BLIP-2: the loss, the batches and everything that happens between steps
 * are functions passed in. The position of a run is one number, the count of updates; epoch and place in the epoch
 * follow from it, so a run continues exactly where it stopped.
 */
import type { Locate, TrainParts } from './step';
import { failStep, trainStep } from './step';
import { nextTurn } from './turn';
import type { World } from './world';
import { alone, sumNumbers } from './world';

export interface TrainOptions {
  totalSteps: number;
  gradient_accumulation_steps: number;
  seed: number;
  logging_steps: number;
  /** updates between evaluations and between checkpoints; both also happen after the last update */
  eval_steps: number;
  save_steps: number;
  /** updates between samples of a few fixed examples, also after the last update; undefined: no samples */
  sample_steps?: number;
  /** minutes of training after which the run ends as after its last update */
  max_minutes?: number;
  /** ends the run after so many evaluations in a row that are not better than the best by more than the threshold */
  early_stopping_patience?: number;
  early_stopping_threshold?: number;
}

/** The state of a run, as a checkpoint stores it. */
export interface TrainState {
  /** updates made */
  step: number;
  /** update after which the last evaluation and the last checkpoint were made */
  evaluated: number;
  saved: number;
  /** the evaluation with the smallest score so far */
  best?: { step: number; score: number };
  /** evaluations since the last one that was clearly better */
  waited: number;
  /** update after which the last samples were made */
  sampled: number;
  /** sums since the last log row */
  window: { loss: number; steps: number; images: number; seconds: number };
  /** time spent in updates */
  seconds: number;
  /** the part of it spent waiting for batches and finishing prefetched ones; absent in checkpoints of earlier versions */
  loading_seconds?: number;
  /** a log row that is due; it stays here if it cannot be written, and a resumed run writes it */
  unlogged?: LogRow;
}

export interface LogRow {
  step: number;
  epoch: number;
  loss: number;
  learning_rate: number;
  grad_norm: number;
  images_per_second: number;
  /** time of all updates so far, and the part of it spent on data */
  seconds: number;
  loading_seconds: number;
}

export interface Progress {
  step: number;
  totalSteps: number;
  epoch: number;
  loss: number;
  images_per_second: number;
  /** estimated time of the remaining updates, without evaluations */
  eta_seconds: number;
}

export interface TrainHooks<B> {
  signal?: AbortSignal;
  onProgress?(progress: Progress): void;
  onLog?(row: LogRow): void | Promise<void>;
  /** runs an evaluation; returns a score, where lower is better, equal on every rank */
  evaluate?(state: TrainState): Promise<number | undefined>;
  /** generates texts for a few fixed examples */
  sample?(state: TrainState): Promise<void>;
  save?(state: TrainState): Promise<void>;
  locate?: Locate<B>;
}

/** Why a run ended. */
export type Ending = 'last step' | 'max_minutes' | 'early stopping';

export interface TrainResult {
  state: TrainState;
  /** stopped early by the signal */
  interrupted: boolean;
  ended?: Ending;
}

/** The state before the first update. */
export function initialState(): TrainState {
  return { step: 0, evaluated: 0, saved: 0, sampled: 0, waited: 0, window: emptyWindow(), seconds: 0 };
}

const emptyWindow = () => ({ loss: 0, steps: 0, images: 0, seconds: 0 });

/** Updates in one epoch; a last, incomplete group of micro-batches still makes an update, as in transformers. */
export function stepsPerEpoch(batchesPerEpoch: number, accumulation: number): number {
  return Math.max(1, Math.ceil(batchesPerEpoch / accumulation));
}

/**
 * Trains until `totalSteps`, until time is up or evaluations get no better, or until the signal is raised; `state` is
 * advanced in place.
 * @throws NonFiniteError before an update from a loss or gradient that is not finite, and after one that made a weight so; an error of
 * one rank in an update or its batches on all ranks, as shareWork does
 */
export async function train<B>(
  parts: TrainParts<B>,
  options: TrainOptions,
  hooks: TrainHooks<B> = {},
  state: TrainState = initialState(),
): Promise<TrainResult> {
  const { world = alone } = parts;
  const stopping: Stopping = () => world.any(hooks.signal?.aborted ?? false);
  const perEpoch = stepsPerEpoch(parts.batchesPerEpoch, options.gradient_accumulation_steps);
  await nextTurn();
  await logDue(hooks, state); // resumed: first what the stop skipped
  await betweenSteps(options, hooks, state, stopping);
  if (ending(options, state) || (await stopping())) return end(options, state);

  let clock = stopwatch();
  for await (const group of agreed(world, stepGroups(parts, options, state.step))) {
    const waited = clock();
    const lr = parts.schedule(state.step);
    const at = { seed: options.seed, step: state.step, lr };
    const { loss, norm } = await trainStep(parts, group, at, hooks.locate);
    state.step++;
    const images = group.reduce((sum, batch) => sum + parts.size(batch).images, 0);
    const computed = clock();
    for (let turn = 0; turn < TURNS; turn++) await nextTurn(); // lets prefetched batches make progress
    const seconds = clock();
    await count(state, world, { loss, images, seconds, loading: waited + seconds - computed });
    const epoch = state.step / perEpoch;
    hooks.onProgress?.({ ...pace(state, options.totalSteps), epoch, loss });
    if (due(options, state, options.logging_steps)) {
      state.unlogged = logRow(state, epoch, lr, norm);
      state.window = emptyWindow();
    }
    await logDue(hooks, state);
    await betweenSteps(options, hooks, state, stopping);
    if (ending(options, state) || (await stopping())) break;
    clock = stopwatch();
  }
  return end(options, state);
}

async function logDue<B>(hooks: TrainHooks<B>, state: TrainState): Promise<void> {
  if (state.unlogged) await hooks.onLog?.(state.unlogged);
  delete state.unlogged;
}

/** The micro-batches of each update, from update number `step` on, epoch after epoch. */
async function* stepGroups<B>(
  parts: TrainParts<B>,
  options: TrainOptions,
  step: number,
): AsyncGenerator<B[]> {
  const size = options.gradient_accumulation_steps;
  const perEpoch = stepsPerEpoch(parts.batchesPerEpoch, size);
  for (let epoch = Math.floor(step / perEpoch), first = (step % perEpoch) * size; ; epoch++, first = 0) {
    let group: B[] = [];
    for await (const batch of parts.batches(epoch, first)) {
      group.push(batch);
      if (group.length === size) {
        yield group;
        group = [];
      }
    }
    if (group.length > 0) yield group;
  }
}

/** The same groups. If they fail on one rank, all ranks throw in place of the update. */
async function* agreed<B>(world: World, groups: AsyncGenerator<B[]>): AsyncGenerator<B[]> {
  try {
    yield* groups;
  } catch (error) {
    await failStep(world, error);
  }
}

/** Has the signal been raised on any rank? */
type Stopping = () => Promise<boolean>;

/** Does what is due after an update. An abort skips evaluation and samples; the resumed run starts with them. */
async function betweenSteps<B>(
  options: TrainOptions,
  hooks: TrainHooks<B>,
  state: TrainState,
  stopping: Stopping,
): Promise<void> {
  const { step } = state;
  if (step === 0) return;
  await sampleIfDue(options, hooks, state, stopping);
  const better = await evaluateIfDue(options, hooks, state, stopping);
  const saveDue = state.saved < step && due(options, state, options.save_steps);
  if (better || saveDue || (state.saved < step && (await stopping()))) {
    state.saved = step;
    await hooks.save?.(state);
  }
}

async function sampleIfDue<B>(
  o: TrainOptions,
  hooks: TrainHooks<B>,
  state: TrainState,
  stopping: Stopping,
): Promise<void> {
  const { step } = state;
  if (!hooks.sample || o.sample_steps === undefined || state.sampled === step) return;
  if (!due(o, state, o.sample_steps) || (await stopping())) return;
  await hooks.sample(state);
  state.sampled = step;
}

/** Evaluates when due. Returns whether the score is the best so far. */
async function evaluateIfDue<B>(
  o: TrainOptions,
  hooks: TrainHooks<B>,
  state: TrainState,
  stopping: Stopping,
): Promise<boolean> {
  const { step, best } = state;
  if (!hooks.evaluate || state.evaluated === step || !due(o, state, o.eval_steps)) return false;
  if (await stopping()) return false;
  const score = (await hooks.evaluate(state)) ?? NaN;
  state.evaluated = step;
  const clearly = best === undefined || score < best.score - (o.early_stopping_threshold ?? 0);
  state.waited = clearly && Number.isFinite(score) ? 0 : state.waited + 1;
  const better = Number.isFinite(score) && (best === undefined || score < best.score);
  if (better) state.best = { step, score };
  return better;
}

/** Turns of the event loop per step. Preparing an image takes several; an empty turn takes microseconds. */
const TURNS = 8;

function due(options: TrainOptions, state: TrainState, every: number): boolean {
  return state.step % every === 0 || ending(options, state) !== undefined;
}

/** Why there is no further update, or undefined. It depends on the state only, so a run resumed with more time continues. */
function ending(o: TrainOptions, { step, seconds, waited }: TrainState): Ending | undefined {
  if (step >= o.totalSteps) return 'last step';
  if (o.max_minutes !== undefined && seconds >= o.max_minutes * 60) return 'max_minutes';
  return o.early_stopping_patience !== undefined && waited >= o.early_stopping_patience
    ? 'early stopping'
    : undefined;
}

/** Returns a function that gives the seconds since this call. */
function stopwatch(): () => number {
  const begin = performance.now();
  return () => (performance.now() - begin) / 1000;
}

/** Adds an update to the sums. Times are the mean over all ranks, so that each rank ends at the same update. */
async function count(
  state: TrainState,
  world: World,
  o: { loss: number; images: number; seconds: number; loading: number },
): Promise<void> {
  const [images, seconds, loading] = await sumNumbers(world, [o.images, o.seconds, o.loading]);
  state.window.loss += o.loss;
  state.window.steps += 1;
  state.window.images += images;
  state.window.seconds += seconds / world.size;
  state.seconds += seconds / world.size;
  state.loading_seconds = (state.loading_seconds ?? 0) + loading / world.size;
}

function pace(state: TrainState, totalSteps: number): Omit<Progress, 'epoch' | 'loss'> {
  const { images, seconds } = state.window;
  return {
    step: state.step,
    totalSteps,
    images_per_second: images / seconds,
    eta_seconds: (totalSteps - state.step) * (state.seconds / state.step),
  };
}

function logRow(state: TrainState, epoch: number, learning_rate: number, grad_norm: number): LogRow {
  const { loss, steps, images, seconds } = state.window;
  return {
    step: state.step,
    epoch,
    loss: loss / steps,
    learning_rate,
    grad_norm,
    images_per_second: images / seconds,
    seconds: state.seconds,
    loading_seconds: state.loading_seconds ?? 0,
  };
}

function end(options: TrainOptions, state: TrainState): TrainResult {
  const ended = ending(options, state);
  return { state, interrupted: ended === undefined, ended };
}

/**
 * checkpoints/step-000123/: what a run needs to go on as if it had never stopped.
 *   trainables.safetensors  the trained tensors by name
 *   optimizer.safetensors   their moments, m.NAME and v.NAME
 *   state.json              step, best evaluation, sums of the open log window, what the run was made of
 * A checkpoint appears whole or not at all: it is written to a temporary folder that is then renamed.
 */
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Tensor, Variable } from '@blip2/nn';
import { tensor, tidy } from '@blip2/nn';
import type { TensorToWrite } from '@blip2/weights';
import { openWeights, writeSafetensors } from '@blip2/weights';
import type { AdamW } from './optimizer';
import { moments } from './optimizer';
import type { TrainState } from './train';

/** What the run was made of; a resumed run must be made of the same. */
export interface RunIdentity {
  /** settings that shape the course of training */
  settings: Record<string, unknown>;
  /** fingerprints of the base weights and of the training examples */
  base: string;
  data: string;
  /** results repeat bit by bit only on the same backend */
  backend: string;
}

export interface Checkpoint {
  dir: string;
  train: TrainState;
  identity: RunIdentity;
  /** length of metrics.jsonl at this point, in bytes */
  metrics_bytes: number;
}

interface StateFile extends Omit<Checkpoint, 'dir'> {
  format: 1;
}

const TENSORS = 'trainables.safetensors';
const MOMENTS = 'optimizer.safetensors';
const STATE = 'state.json';

export function checkpointDir(runDir: string, step: number): string {
  return join(runDir, 'checkpoints', `step-${String(step).padStart(6, '0')}`);
}

/** Writes the checkpoint of `content.train.step` and returns its folder. */
export async function writeCheckpoint(
  runDir: string,
  trainables: Map<string, Variable>,
  optimizer: AdamW,
  content: Omit<Checkpoint, 'dir'>,
): Promise<string> {
  const dir = checkpointDir(runDir, content.train.step);
  const temporary = `${dir}.tmp`;
  await rm(temporary, { recursive: true, force: true });
  await mkdir(temporary, { recursive: true });
  await writeSafetensors(join(temporary, TENSORS), toWrite(trainables));
  await writeSafetensors(join(temporary, MOMENTS), toWrite(moments(optimizer)));
  const state: StateFile = { format: 1, ...content };
  await writeSynced(join(temporary, STATE), JSON.stringify(state, null, 2) + '\n');
  await rm(dir, { recursive: true, force: true });
  await rename(temporary, dir);
  await syncFolder(join(runDir, 'checkpoints'));
  return dir;
}

/** Read one after the other while the file is written. */
function toWrite(tensors: Map<string, Tensor>): TensorToWrite[] {
  return [...tensors].map(([name, x]) => ({
    name,
    dtype: 'F32',
    shape: x.shape,
    data: async () => (await x.data()) as Float32Array,
  }));
}

/** Steps of the checkpoints of a run, newest first; folders that are still temporary are not among them. */
export async function listCheckpoints(runDir: string): Promise<number[]> {
  const names = await readdir(join(runDir, 'checkpoints')).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  const steps = names.flatMap((name) => (/^step-\d+$/.test(name) ? [Number(name.slice(5))] : []));
  return steps.sort((a, b) => b - a);
}

/**
 * The newest checkpoint that can be read, restored into `trainables` and `optimizer`; nothing when there is none.
 * A damaged one is reported through `onSkip` and passed over. `check` sees a readable one before its tensors are
 * touched; what it throws ends the search.
 */
export async function restoreNewest(
  runDir: string,
  trainables: Map<string, Variable>,
  optimizer: AdamW,
  onSkip: (dir: string, why: string) => void,
  check: (checkpoint: Checkpoint) => void = () => undefined,
): Promise<Checkpoint | undefined> {
  for (const step of await listCheckpoints(runDir)) {
    const dir = checkpointDir(runDir, step);
    const checkpoint = await readState(dir).catch((error: Error) => onSkip(dir, error.message));
    if (!checkpoint) continue;
    check(checkpoint);
    try {
      const weights = await readTensors(join(dir, TENSORS), trainables);
      assign([...weights, ...(await readTensors(join(dir, MOMENTS), moments(optimizer)))]);
      optimizer.step = checkpoint.train.step;
      return checkpoint;
    } catch (error) {
      onSkip(dir, (error as Error).message);
    }
  }
  return undefined;
}

/** Only the trained tensors of one checkpoint, for the best weights at the end. */
export async function restoreTrainables(dir: string, trainables: Map<string, Variable>): Promise<void> {
  assign(await readTensors(join(dir, TENSORS), trainables));
}

async function readState(dir: string): Promise<Checkpoint> {
  const text = await readFile(join(dir, STATE), 'utf8').catch(() => {
    throw new Error(`${STATE} is missing`);
  });
  let state: Partial<StateFile>;
  try {
    state = JSON.parse(text) as Partial<StateFile>;
  } catch (error) {
    throw new Error(`${STATE} is no JSON: ${(error as Error).message}`);
  }
  if (state.format !== 1) throw new Error(`${STATE}: format is ${state.format}, expected 1`);
  const { train, identity, metrics_bytes } = state;
  if (!Number.isSafeInteger(train?.step) || !identity || !Number.isSafeInteger(metrics_bytes))
    throw new Error(`${STATE}: train.step, identity or metrics_bytes is missing`);
  return { dir, train: train!, identity, metrics_bytes: metrics_bytes! };
}

type Stored = [target: Variable, values: Float32Array][];

/** What a file holds for `targets`. Nothing is changed before all files are read, so that a damaged one leaves the weights alone. */
async function readTensors(file: string, targets: Map<string, Variable>): Promise<Stored> {
  const reader = await openWeights(file);
  try {
    const wrong = tableProblems(reader.entries, targets);
    if (wrong.length) throw new Error(`${file}:\n  ${wrong.join('\n  ')}`);
    const stored: Stored = [];
    for (const [name, target] of targets) stored.push([target, await reader.readFloat32(name)]);
    return stored;
  } finally {
    await reader.close();
  }
}

function assign(stored: Stored): void {
  tidy(() => {
    for (const [target, values] of stored) target.assign(tensor(values, target.shape));
  });
}

function tableProblems(entries: Map<string, { shape: number[] }>, targets: Map<string, Variable>): string[] {
  const problems = [...targets].flatMap(([name, { shape }]) => {
    const found = entries.get(name);
    if (!found) return [`${name} [${shape}] is missing`];
    return String(found.shape) === String(shape)
      ? []
      : [`${name}: expected [${shape}], found [${found.shape}]`];
  });
  const unexpected = [...entries.keys()].filter((name) => !targets.has(name));
  return [...problems, ...unexpected.map((name) => `${name} does not train in this run`)];
}

/**
 * Deletes all but the newest `limit` checkpoints; the one of the best evaluation always stays. Those after update `now` do not
 * count: they were passed over as damaged when the run was resumed, and will be written again.
 */
export async function rotateCheckpoints(
  runDir: string,
  limit: number,
  best?: number,
  now = Infinity,
): Promise<void> {
  const steps = (await listCheckpoints(runDir)).filter((step) => step <= now);
  for (const step of steps.slice(limit))
    if (step !== best) await rm(checkpointDir(runDir, step), { recursive: true, force: true });
}

async function writeSynced(file: string, text: string): Promise<void> {
  const handle = await open(file, 'w');
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Makes a rename durable; not every system lets a folder be opened. */
async function syncFolder(dir: string): Promise<void> {
  const handle = await open(dir, 'r').catch(() => undefined);
  try {
    await handle?.sync();
  } catch {
    // the rename itself has happened
  } finally {
    await handle?.close();
  }
}

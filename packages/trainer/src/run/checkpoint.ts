/**
 * checkpoints/step-000123/: everything a run needs to continue exactly.
 *   trainables.safetensors  the trained tensors by name
 *   optimizer.safetensors   their moments, m.NAME and v.NAME
 *   state.json              step, best evaluation, sums since the last log row, the run's identity, checksums of all files
 * A checkpoint appears whole or not at all: it is written to a temporary folder, flushed, and then renamed.
 */
import { createHash } from 'node:crypto';
import { readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { Tensor, Variable } from '@blip2/nn';
import { tensor, tidy } from '@blip2/nn';
import type { TensorToWrite } from '@blip2/weights';
import {
  isDraft,
  makeFolders,
  openRegular,
  openWeights,
  readRegular,
  syncFolder,
  writeFileAtomic,
  writeSafetensors,
} from '@blip2/weights/node';
import type { AdamW } from '../train/optimizer';
import { moments } from '../train/optimizer';
import type { TrainState } from '../train/train';

/** The inputs that determine a run's result. A resumed run must have the same. */
export interface RunIdentity {
  /** settings that influence the result */
  settings: Record<string, unknown>;
  /** SHA-256 of the base's files, by name; a text in checkpoints of earlier versions */
  base: Record<string, string> | string;
  /** the same of the adapter that the run started from, if any */
  adapter?: Record<string, string>;
  /** fingerprint of the training examples: file names and texts */
  data: string;
  /** SHA-256 of the list of the training images' contents; absent if the images were not read (cache_features: false) */
  images?: string;
  /** in int8, of the factors that the weights were rounded with, which lie in the run folder */
  smoothing?: string;
  /** results repeat bit by bit only on the same backend */
  backend: string;
}

export interface Checkpoint {
  dir: string;
  train: TrainState;
  identity: RunIdentity;
  /** lengths at this point, in bytes, of the run's files that only grow, by name */
  logs: Record<string, number>;
}

/** A checkpoint that cannot be used, and why. */
export interface Damaged {
  dir: string;
  why: string;
}

interface StateFile {
  format: 2;
  /** of `content` as JSON */
  sha256: string;
  content: Omit<Checkpoint, 'dir'> & { files: Record<string, string> };
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
  try {
    await makeFolders(temporary);
    await writeFiles(temporary, trainables, optimizer, content);
    await rm(dir, { recursive: true, force: true });
    await rename(temporary, dir);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined); // frees the space if the disk is full
    throw error;
  }
  await syncFolder(join(runDir, 'checkpoints'));
  return dir;
}

async function writeFiles(
  dir: string,
  trainables: Map<string, Variable>,
  optimizer: AdamW,
  content: Omit<Checkpoint, 'dir'>,
): Promise<void> {
  await writeSafetensors(join(dir, TENSORS), toWrite(trainables));
  await writeSafetensors(join(dir, MOMENTS), toWrite(moments(optimizer)));
  const whole = { ...content, files: await checksums(dir) };
  const state: StateFile = { format: 2, sha256: hashOf(whole), content: whole };
  await writeFileAtomic(join(dir, STATE), JSON.stringify(state, null, 2) + '\n');
  await syncFolder(dir);
}

async function checksums(dir: string): Promise<Record<string, string>> {
  return { [TENSORS]: await sha256(join(dir, TENSORS)), [MOMENTS]: await sha256(join(dir, MOMENTS)) };
}

async function sha256(file: string): Promise<string> {
  const hash = createHash('sha256');
  const { handle } = await openRegular(file);
  await pipeline(handle.createReadStream(), hash);
  return hash.digest('hex');
}

function hashOf(content: object): string {
  return createHash('sha256').update(JSON.stringify(content)).digest('hex');
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

/** Steps of a run's checkpoints, newest first, without temporary folders. */
export async function listCheckpoints(runDir: string): Promise<number[]> {
  const names = await namesIn(join(runDir, 'checkpoints'));
  const steps = names.flatMap((name) => (/^step-\d+$/.test(name) ? [Number(name.slice(5))] : []));
  return steps.sort((a, b) => b - a);
}

/**
 * The newest checkpoint whose files are intact, and the damaged ones that are newer.
 * Tensors are not loaded.
 */
export async function findCheckpoint(runDir: string): Promise<{ found?: Checkpoint; damaged: Damaged[] }> {
  const damaged: Damaged[] = [];
  for (const step of await listCheckpoints(runDir)) {
    const dir = checkpointDir(runDir, step);
    try {
      return { found: await readVerified(dir), damaged };
    } catch (error) {
      damaged.push({ dir, why: (error as Error).message });
    }
  }
  return { damaged };
}

/**
 * Restores trained tensors and moments.
 * @throws Error when the checkpoint holds other tensors; then nothing has changed
 */
export async function restoreCheckpoint(
  { dir, train }: Checkpoint,
  trainables: Map<string, Variable>,
  optimizer: AdamW,
): Promise<void> {
  const weights = await readTensors(join(dir, TENSORS), trainables);
  assign([...weights, ...(await readTensors(join(dir, MOMENTS), moments(optimizer)))]);
  optimizer.step = train.step;
}

/**
 * Reads only the trained tensors of one checkpoint, for the best weights at the end. Returns the function that assigns them.
 * @throws Error when it is damaged
 */
export async function readTrainables(dir: string, trainables: Map<string, Variable>): Promise<() => void> {
  await readVerified(dir);
  const stored = await readTensors(join(dir, TENSORS), trainables);
  return () => assign(stored);
}

/** Removes what a killed process left: incomplete checkpoints, and temporary files of the result and the run. */
export async function removeLeftovers(runDir: string): Promise<void> {
  await removeDeleted(runDir);
  for (const name of await namesIn(runDir))
    if (isDraft(name)) await rm(join(runDir, name), { recursive: true, force: true });
}

/** Removes checkpoints whose writing or deletion was cut off. */
async function removeDeleted(runDir: string): Promise<void> {
  const folder = join(runDir, 'checkpoints');
  for (const name of await namesIn(folder))
    if (/^step-\d+\.tmp$/.test(name)) await rm(join(folder, name), { recursive: true, force: true });
}

async function namesIn(dir: string): Promise<string[]> {
  return readdir(dir).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
}

/** @throws Error when a file is missing or not as it was written */
async function readVerified(dir: string): Promise<Checkpoint> {
  const { files, ...content } = await readState(dir);
  for (const name of [TENSORS, MOMENTS]) {
    const found = await sha256(join(dir, name)).catch(({ code, message }: NodeJS.ErrnoException) => {
      throw new Error(
        code === 'ENOENT' ? `${name} is missing` : `${name} cannot be read (${code ?? message})`,
      );
    });
    if (found !== files[name]) throw new Error(`${name} is not as it was written (its checksum differs)`);
  }
  return { dir, ...content };
}

async function readState(dir: string): Promise<StateFile['content']> {
  const text = await readRegular(join(dir, STATE)).catch(({ code, message }: NodeJS.ErrnoException) => {
    throw new Error(
      code === 'ENOENT' ? `${STATE} is missing` : `${STATE} cannot be read (${code ?? message})`,
    );
  });
  let state: Partial<StateFile>;
  try {
    state = JSON.parse(text.toString('utf8')) as Partial<StateFile>;
  } catch (error) {
    throw new Error(`${STATE} is no JSON: ${(error as Error).message}`);
  }
  const { format, sha256, content } = state;
  if (format !== 2) throw new Error(`${STATE}: format is ${format}, expected 2`);
  if (!content || sha256 !== hashOf(content))
    throw new Error(`${STATE} is not as it was written (its checksum differs)`);
  return content;
}

type Stored = [target: Variable, values: Float32Array][];

/** Reads the values for `targets`. All files are read before any tensor changes, so a damaged file changes nothing. */
async function readTensors(file: string, targets: Map<string, Variable>): Promise<Stored> {
  const reader = await openWeights(file);
  try {
    const wrong = tableProblems(reader.entries, targets);
    if (wrong.length) throw new Error(`${file}:\n  ${wrong.join('\n  ')}`);
    const stored: Stored = [];
    for (const [name, target] of targets) {
      const values = await reader.readFloat32(name);
      if (!values.every(Number.isFinite)) throw new Error(`${file}: ${name} has values that are not finite`);
      stored.push([target, values]);
    }
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
 * count: they were damaged when the run was resumed, and will be written again.
 */
export async function rotateCheckpoints(
  runDir: string,
  limit: number,
  best?: number,
  now = Infinity,
): Promise<void> {
  const steps = (await listCheckpoints(runDir)).filter((step) => step <= now);
  for (const step of steps.slice(limit))
    if (step !== best) {
      const dir = checkpointDir(runDir, step);
      await rename(dir, `${dir}.tmp`); // so that an incomplete checkpoint never looks complete
    }
  await removeDeleted(runDir);
}

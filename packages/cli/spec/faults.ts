/** Runs `blip2 fit` in a process, kills it, and collects its files for a comparison. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';

/** A number in [0, 1) for each i, the same for the same seed. */
export function fraction(seed: string, i: number): number {
  return createHash('sha256').update(`${seed} ${i}`).digest().readUInt32LE() / 2 ** 32;
}

export interface ProcessResult {
  /** exit code; null if the process was killed */
  code: number | null;
  stderr: string;
  /** from start to end */
  seconds: number;
  /** seconds from the start of training to the end */
  training: number;
}

/** Environment of processes whose output is compared: no colour, even if the suite runs with colour. */
export const PLAIN = { ...process.env, NO_COLOR: '1', FORCE_COLOR: undefined };

/** The last message before training starts. */
const TRAINING = 'feature cache:';

/** Runs a command to its end, or kills it `after` seconds after its start or the start of training. */
export async function runProcess(
  argv: string[],
  kill?: { after: number; of: 'start' | 'training' },
): Promise<ProcessResult> {
  const child = spawn(argv[0], argv.slice(1), { stdio: ['ignore', 'ignore', 'pipe'], env: PLAIN });
  const begin = performance.now();
  let trainingStart = Infinity;
  let stderr = '';
  const killLater = () => setTimeout(() => child.kill('SIGKILL'), kill!.after * 1000);
  let timer = kill?.of === 'start' ? killLater() : undefined;
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk;
    if (trainingStart < Infinity || !stderr.includes(TRAINING)) return;
    trainingStart = performance.now();
    if (kill?.of === 'training') timer = killLater();
  });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  clearTimeout(timer);
  const end = performance.now();
  return { code, stderr, seconds: (end - begin) / 1000, training: Math.max(0, end - trainingStart) / 1000 };
}

/** Hashes of a run's weights and optimizer state, and its metrics without times. */
export async function outcome(dir: string, lastStep: number) {
  const last = join(dir, 'checkpoints', `step-${String(lastStep).padStart(6, '0')}`);
  const hash = async (file: string) =>
    createHash('sha256')
      .update(await readFile(file))
      .digest('hex');
  const rows = (await readFile(join(dir, 'metrics.jsonl'), 'utf8')).trim().split('\n');
  const untimed = (row: string) =>
    Object.entries(JSON.parse(row) as object).filter(([name]) => !name.includes('second'));
  return {
    adapter: await hash(join(dir, 'adapter', 'adapter_model.safetensors')),
    trainables: await hash(join(last, 'trainables.safetensors')),
    moments: await hash(join(last, 'optimizer.safetensors')),
    metrics: rows.map(untimed),
  };
}

export interface Faults {
  kills: number;
  /** runs that finished after being killed and resumed */
  runs: number;
}

/**
 * Kills runs in `dir` at `count` random times and resumes them, and calls `check` for each run that finishes. Every
 * fourth kill is at any time of the process, the others during training.
 */
export async function killAndResume(
  o: { argv: string[]; dir: string; count: number; seed: string; uninterrupted: ProcessResult },
  check: (log: string) => Promise<void>,
): Promise<Faults> {
  let [kills, runs, log] = [0, 0, ''];
  await rm(o.dir, { recursive: true, force: true });
  for (let i = 0; kills < o.count || log !== ''; i++) {
    const of = i % 4 === 3 ? 'start' : 'training';
    const after = fraction(o.seed, i) * (of === 'start' ? o.uninterrupted.seconds : o.uninterrupted.training);
    const argv = existsSync(o.dir) ? [...o.argv, '--resume'] : o.argv;
    const { code, stderr } = await runProcess(argv, kills < o.count ? { after, of } : undefined);
    log += `--- ${code === null ? `killed ${after.toFixed(2)} s after ${of}` : `ended with ${code}`}\n${stderr}`;
    if (code === null) {
      kills++;
      continue;
    }
    if (code !== 0) throw new Error(`seed ${o.seed}: a run ended with ${code} after ${kills} kills:\n${log}`);
    await check(`seed ${o.seed}, ${kills} kills:\n${log}`);
    await rm(o.dir, { recursive: true, force: true });
    runs++;
    log = '';
  }
  return { kills, runs };
}

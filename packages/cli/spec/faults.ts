/** A real `blip2 fit` process that can be killed, and what it leaves, for comparing. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';

/** A number in [0, 1) for each i, the same for the same seed. */
export function fraction(seed: string, i: number): number {
  return createHash('sha256').update(`${seed} ${i}`).digest().readUInt32LE() / 2 ** 32;
}

export interface Leg {
  /** of a process that ended by itself; null when it was killed */
  code: number | null;
  stderr: string;
  /** from the start, and from the message that training begins, to the end */
  seconds: number;
  training: number;
}

/** The environment of a process whose text is compared: without colour, whatever colour the suite itself is run with. */
export const PLAIN = { ...process.env, NO_COLOR: '1', FORCE_COLOR: undefined };

/** What the command says last before it trains. */
const TRAINING = 'feature cache:';

/** Runs a command to its end, or kills it `after` seconds from its start or from the beginning of its training. */
export async function leg(argv: string[], kill?: { after: number; of: 'start' | 'training' }): Promise<Leg> {
  const child = spawn(argv[0], argv.slice(1), { stdio: ['ignore', 'ignore', 'pipe'], env: PLAIN });
  const begin = performance.now();
  let trains = Infinity;
  let stderr = '';
  const killLater = () => setTimeout(() => child.kill('SIGKILL'), kill!.after * 1000);
  let timer = kill?.of === 'start' ? killLater() : undefined;
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk;
    if (trains < Infinity || !stderr.includes(TRAINING)) return;
    trains = performance.now();
    if (kill?.of === 'training') timer = killLater();
  });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  clearTimeout(timer);
  const end = performance.now();
  return { code, stderr, seconds: (end - begin) / 1000, training: Math.max(0, end - trains) / 1000 };
}

/** Everything a run leaves that its course decides, without the times. */
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
    course: rows.map(untimed),
  };
}

export interface Faults {
  kills: number;
  /** complete runs that were put together from killed ones */
  runs: number;
}

/**
 * Kills runs into `dir` at `count` random instants and resumes each time, until `check` has seen every run that came to its
 * end. Every fourth instant lies anywhere in a process's life, the others while it trains.
 */
export async function killAndResume(
  o: { argv: string[]; dir: string; count: number; seed: string; whole: Leg },
  check: (story: string) => Promise<void>,
): Promise<Faults> {
  let [kills, runs, story] = [0, 0, ''];
  await rm(o.dir, { recursive: true, force: true });
  for (let i = 0; kills < o.count || story !== ''; i++) {
    const of = i % 4 === 3 ? 'start' : 'training';
    const after = fraction(o.seed, i) * (of === 'start' ? o.whole.seconds : o.whole.training);
    const argv = existsSync(o.dir) ? [...o.argv, '--resume'] : o.argv;
    const { code, stderr } = await leg(argv, kills < o.count ? { after, of } : undefined);
    story += `--- ${code === null ? `killed ${after.toFixed(2)} s after ${of}` : `ended with ${code}`}\n${stderr}`;
    if (code === null) {
      kills++;
      continue;
    }
    if (code !== 0)
      throw new Error(`seed ${o.seed}: a run ended with ${code} after ${kills} kills:\n${story}`);
    await check(`seed ${o.seed}, ${kills} kills:\n${story}`);
    await rm(o.dir, { recursive: true, force: true });
    runs++;
    story = '';
  }
  return { kills, runs };
}

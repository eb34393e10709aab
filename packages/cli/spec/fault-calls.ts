/**
 * Commands whose system calls that change files fail, one after the other, or kill the process there (faults.cc). Then the same
 * command must succeed, and leave what it leaves when nothing fails.
 */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync } from 'node:fs';
import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { constants } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openWeights } from '@blip2/weights/node';
import { PLAIN } from './faults';

/** A command that writes only into `dir`. */
export interface Job {
  name: string;
  argv(dir: string): string[];
  /** the command that goes on after a failure; default: the same */
  again?(dir: string): string[];
  /** what a finished command leaves; equal however it came about */
  result(dir: string): Promise<unknown>;
  /** folders that are there as in `result`, or not at all, at any time */
  whole: string[];
  env?: Record<string, string>;
}

/** Error number of each fault; 0 is a kill. `on`: all later calls fail as well. */
export const FAULTS = {
  kill: { error: 0 },
  EIO: { error: constants.errno.EIO },
  ENOSPC: { error: constants.errno.ENOSPC },
  EBUSY: { error: constants.errno.EBUSY },
  ESTALE: { error: constants.errno.ESTALE },
  'disk full': { error: constants.errno.ENOSPC, on: true },
  'read-only': { error: 30, on: true },
} satisfies Record<string, { error: number; on?: boolean }>;
export type Fault = keyof typeof FAULTS;

/** A call and a fault, and why it did not hold. */
export interface Tried {
  job: string;
  call: string;
  fault: Fault;
  problem?: string;
}

/**
 * Compiles the library; undefined where the system has no preloading or no compiler.
 *
 * @throws Error with the compiler's message if it refuses the source.
 */
export function faultLibrary(): string | undefined {
  if (process.platform !== 'linux') return undefined;
  const source = fileURLToPath(new URL('faults.cc', import.meta.url));
  const library = fileURLToPath(new URL('../build/faults.so', import.meta.url));
  const options = ['-std=c++17', '-shared', '-fPIC', '-O1', '-o', library, source, '-ldl'];
  mkdirSync(dirname(library), { recursive: true });
  const { error, status, stderr } = spawnSync('c++', options, { encoding: 'utf8' });
  if (error) return undefined;
  if (status !== 0) throw new Error(`faults.cc was not compiled: ${stderr}`);
  return library;
}

interface Ended {
  code: number | null;
  stderr: string;
  /** "CALL PATH": of the calls that were counted, or of the one that met the fault */
  calls: string[];
}

/** Runs the command with the library, which counts calls or, with `at`, lets number `at` meet the fault. */
async function runWith(library: string, job: Job, dir: string, at?: number, fault?: Fault): Promise<Ended> {
  const log = `${dir}.calls`;
  await rm(log, { force: true });
  const { error, on } = { on: false, ...FAULTS[fault ?? 'kill'] };
  const env = {
    ...PLAIN,
    ...job.env,
    LD_PRELOAD: library,
    BLIP2_FAULT_ROOT: `${dir}/`,
    BLIP2_FAULT_LOG: log,
    ...(at !== undefined && { BLIP2_FAULT: `${at} ${error}${on ? ' on' : ''}` }),
  };
  const { code, stderr } = await runPlain(job.argv(dir), env);
  const calls = existsSync(log) ? (await readFile(log, 'utf8')).trim().split('\n') : [];
  return { code, stderr, calls };
}

async function runPlain(
  argv: string[],
  env: NodeJS.ProcessEnv,
): Promise<{ code: number | null; stderr: string }> {
  const child = spawn(argv[0], argv.slice(1), { stdio: ['ignore', 'ignore', 'pipe'], env });
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => void (stderr += chunk));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  return { code, stderr };
}

/** Which calls meet which fault, of calls in an order in which the first few are of all kinds. */
export type Choice = (order: number[]) => { fault: Fault; at: number }[];

const ALL = Object.keys(FAULTS) as Fault[];
const ERRORS = ALL.filter((fault) => fault !== 'kill');

/** `points` calls meet each error, and three times as many are killed; with Infinity every call meets every fault. */
export const someCalls =
  (points: number): Choice =>
  (order) =>
    ALL.flatMap((fault, k) => {
      const count = Math.min(fault === 'kill' ? 3 * points : points, order.length);
      return Array.from({ length: count }, (_, i) => ({ fault, at: order[(i + k) % order.length] }));
    });

/** Every call is killed once and fails once, with one error after the other. */
export const eachCall: Choice = (order) =>
  order.flatMap((at, i) => [
    { fault: 'kill' as const, at },
    { fault: ERRORS[i % ERRORS.length], at },
  ]);

/** Lets the chosen calls of a job meet their faults. */
export async function tryJob(library: string, root: string, job: Job, choose: Choice): Promise<Tried[]> {
  const whole = join(root, `${job.name}-whole`);
  await mkdir(whole);
  const { code, stderr, calls } = await runWith(library, job, whole);
  if (code !== 0) throw new Error(`${job.name} failed without a fault:\n${stderr}`);
  const expected = JSON.stringify(await job.result(whole));
  const tries = choose(mixed(calls));
  const tried: Tried[] = [];
  const worker = async () => {
    for (let next = tries.pop(); next; next = tries.pop())
      tried.push(...(await tryCall(library, root, job, expected, next.at, next.fault)));
  };
  await Promise.all([worker(), worker()]);
  return tried;
}

/** Numbers of the calls, so that the first few are of different kinds, from the middle of each. */
function mixed(calls: string[]): number[] {
  const byKind = new Map<string, number[]>();
  calls.forEach((call, at) =>
    byKind.set(call.split(' ')[0], [...(byKind.get(call.split(' ')[0]) ?? []), at]),
  );
  const lists = [...byKind.values()].map((list) => [
    ...list.slice(list.length >> 1),
    ...list.slice(0, list.length >> 1),
  ]);
  return calls.flatMap((_, rank) => lists.flatMap((list) => list[rank] ?? []));
}

/** Nothing when the command made fewer calls this time. */
async function tryCall(
  library: string,
  root: string,
  job: Job,
  expected: string,
  at: number,
  fault: Fault,
): Promise<Tried[]> {
  const dir = join(root, `${job.name}-${fault.replace(' ', '-')}-${at}`);
  await mkdir(dir);
  const first = await runWith(library, job, dir, at, fault);
  const [met] = first.calls;
  if (met === undefined) return [];
  const left = await problemsIn(dir, job, expected);
  // the lock is deleted last: killed there, the command is done, and would not overwrite what it made
  const done = first.code === 0 || (isLock(met) && (await resultOf(dir, job)) === expected);
  const argv = done ? undefined : (job.again ?? job.argv)(dir);
  const second = argv && (await runPlain(argv, { ...PLAIN, ...job.env }));
  const problems = [
    ...endingProblems(first, fault),
    ...left,
    ...(second && second.code !== 0 ? [`again: ended with ${second.code}`] : []),
    ...(await resultProblems(dir, job, expected, met)),
  ];
  const story = `${basename(dir)} at ${met}:\n  ${problems.join('\n  ')}\n${first.stderr}---\n${second?.stderr ?? ''}`;
  if (problems.length === 0) await rm(dir, { recursive: true });
  const call = met.split(' ')[0];
  return [{ job: job.name, call, fault, ...(problems.length > 0 && { problem: story }) }];
}

function endingProblems({ code, stderr }: Ended, fault: Fault): string[] {
  if (fault === 'kill') return code === null ? [] : [`ended with ${code}, not killed`];
  if (code === 0) return [];
  const isPlain = /^error: /m.test(stderr) && !/\n {4}at |may be a bug|Unknown system error/.test(stderr);
  return code === 1 && isPlain ? [] : [`ended with ${code}, not with 1 and an error in words`];
}

const isTemporary = (path: string) => /\.tmp([\\/]|$)|[\\/]tmp[\\/]|\.lock$/.test(path);

/** Files under their final names that are not whole. */
async function problemsIn(dir: string, job: Job, expected: string): Promise<string[]> {
  const problems: string[] = [];
  for (const name of (await readdir(dir, { recursive: true })).filter((path) => !isTemporary(path))) {
    const problem = await fileProblem(join(dir, name));
    if (problem) problems.push(`${name}: ${problem}`);
  }
  for (const folder of job.whole) {
    const names = (await readdir(join(dir, folder)).catch(() => [])).filter((name) => !isTemporary(name));
    if (names.length > 0 && !expected.includes(await hashOf(join(dir, folder))))
      problems.push(`${folder}: is there in part: ${names.join(', ')}`);
  }
  return problems;
}

async function fileProblem(file: string): Promise<string | undefined> {
  try {
    if (file.endsWith('.json')) JSON.parse(await readFile(file, 'utf8'));
    if (file.endsWith('.safetensors')) await (await openWeights(file)).close();
    if (file.endsWith('.html') && !(await readFile(file, 'utf8')).includes('</html>')) return 'is cut off';
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

const isLock = (call: string) => call.startsWith('unlink ') && call.endsWith('.lock');

const resultOf = (dir: string, job: Job): Promise<string> =>
  job.result(dir).then(JSON.stringify, (error: Error) => error.message);

/** @param met the call that failed: a file that it did not delete may stay, since nothing else can */
async function resultProblems(dir: string, job: Job, expected: string, met: string): Promise<string[]> {
  const found = await resultOf(dir, job);
  const names = (await readdir(dir, { recursive: true })).filter((path) => /\.tmp$|\.lock$/.test(path));
  // what could not be deleted, and the lock of the run after it, which the next process takes over
  const kept = isLock(met);
  const left = names.filter(
    (name) => met !== `unlink ${join(dir, name)}` && !(kept && name.endsWith('.lock')),
  );
  return [
    ...(found === expected ? [] : [`expected ${expected}, found ${found}`]),
    ...(left.length > 0 ? [`left behind: ${left.join(', ')}`] : []),
  ];
}

/** Of the names and contents of a folder's files, or of a file; a README may name the folder that it is in. */
export async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  const names = await readdir(path, { recursive: true }).catch(() => ['']);
  for (const name of names.sort()) {
    const content = await readFile(join(path, name)).catch(() => 'a folder');
    const plain = name.endsWith('.md') ? String(content).replaceAll(path, '') : content;
    hash.update(`${name}\n`).update(plain);
  }
  return hash.digest('hex');
}

/** Rows by command and call, columns by fault: how many held of how many were tried. */
export function table(tried: Tried[]): string {
  const cell = (some: Tried[]) =>
    some.length === 0 ? '–' : `${some.filter(({ problem }) => !problem).length}/${some.length}`;
  const line = (name: string, cells: string[]) =>
    name.padEnd(26) + cells.map((text) => text.padStart(10)).join('');
  const row = (name: string, some: Tried[]) =>
    line(name, [...ALL.map((fault) => cell(some.filter((one) => one.fault === fault))), cell(some)]);
  const rows = [...new Set(tried.map(({ job, call }) => `${job}: ${call}`))].sort();
  return [
    line('held/tried', [...ALL, 'all']),
    ...rows.map((name) =>
      row(
        name,
        tried.filter(({ job, call }) => `${job}: ${call}` === name),
      ),
    ),
    row('all', tried),
  ].join('\n');
}

/**
 * A training process whose file system fails: `node faults-process.js FAULT CONFIG [resume]`, the first two as JSON. Calls that
 * change files are counted; at number `at` the process kills itself, or from there on the disk is full or read-only. A write
 * that meets the fault is done by half. What happened is on stderr, one JSON object a line.
 */
import { existsSync, writeSync } from 'node:fs';
import fs from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { devNull } from 'node:os';
import type { FitConfig } from '../src/config';
import { fit } from '../src/fit';

export interface Fault {
  kind: 'none' | 'kill' | 'ENOSPC' | 'EROFS';
  /** number of the first call that meets it */
  at: number;
}

type Args = unknown[];
type Call = (this: unknown, ...args: Args) => Promise<unknown>;
type Data = string | Uint8Array;

const REASONS: Record<string, string> = {
  ENOSPC: 'no space left on device',
  EROFS: 'read-only file system',
};
const fault = JSON.parse(process.argv[2]) as Fault;
const say = (what: object) => void writeSync(2, JSON.stringify(what) + '\n');
/** The files of open handles. */
const files = new WeakMap<object, string>();
let calls = 0;

/** Goes on, throws, or never comes back. `half` does half of a write. */
async function meet(call: string, file: string, half?: () => Promise<unknown>): Promise<void> {
  const { kind, at } = fault;
  if (call === 'rm' && !existsSync(file)) return;
  const now = calls++;
  const isFull = kind === 'ENOSPC' && ['rename', 'rm', 'truncate'].includes(call); // these take no room
  if (kind === 'none' || now < at || isFull) return;
  if (now === at) say({ met: { call, file } });
  if (kind !== 'EROFS') await half?.();
  if (kind !== 'kill')
    throw Object.assign(new Error(`${kind}: ${REASONS[kind]}, ${half ? 'write' : `${call} '${file}'`}`), {
      code: kind,
    });
  process.kill(process.pid, 'SIGKILL');
  await new Promise(() => undefined);
}

/** Puts a watched function in the place of one of `owner`; `halved` are the arguments of half a write. */
function watch(
  owner: object,
  call: string,
  fileOf: (self: unknown, args: Args) => string | undefined,
  halved?: (args: Args) => Args,
): void {
  const table = owner as Record<string, Call>;
  const original = table[call];
  table[call] = async function (...args) {
    const file = fileOf(this, args);
    const half = halved && (() => original.apply(this, halved(args)));
    if (file !== undefined) await meet(call, file, half);
    const result = await original.apply(this, args);
    if (call === 'open') files.set(result as object, args[0] as string);
    return result;
  };
}

const halfOf = (data: Data) => data.slice(0, data.length >> 1);

async function watchAll(): Promise<void> {
  const named = (_: unknown, [file]: Args) => String(file);
  const handle = await fs.open(devNull);
  const handles = Object.getPrototypeOf(handle) as object;
  await handle.close();
  for (const call of ['mkdir', 'rename', 'rm', 'truncate']) watch(fs, call, named);
  for (const call of ['writeFile', 'appendFile'])
    watch(fs, call, named, ([file, data, ...rest]) => [file, halfOf(data as Data), ...rest]);
  watch(fs, 'open', (_, [file, flags]) =>
    ['a', 'w', 'wx'].includes(flags as string) ? String(file) : undefined,
  );
  const opened = (self: unknown) => files.get(self as object);
  watch(handles, 'writeFile', opened, ([data, ...rest]) => [halfOf(data as Data), ...rest]);
  watch(handles, 'write', opened, ([bytes, offset, length]) => [bytes, offset, (length as number) >> 1]);
  syncBuiltinESMExports(); // those who imported the functions by name see the watched ones
}

const config = JSON.parse(process.argv[3]) as FitConfig;
await watchAll();
try {
  const onMessage = (message: string) => say({ message });
  await fit(config, { resume: process.argv[4] === 'resume', onMessage });
  say({ calls });
} catch (error) {
  say({ error: (error as Error).message, stack: (error as Error).stack });
  process.exitCode = 1;
}

/** The trainer's World over MPI. */
import { availableParallelism, cpus } from 'node:os';
import { dispose, tensor } from '@blip2/nn';
import type { Tensor } from '@blip2/nn';
import { alone } from '@blip2/trainer';
import type { World } from '@blip2/trainer';
import type { MpiAddon } from './addon';
import { loadAddon } from './addon';
import type { Launch } from './launch';
import { launchOf } from './launch';

/** A world that must be closed at the end of the work, on every rank. */
export interface OpenWorld extends World {
  /** such as "Open MPI v4.1.4"; undefined for a single process */
  readonly library?: string;
  /** threads of this process, and cores of its machine */
  readonly threads?: { own: number; cores: number };
  /** Waits for the other ranks and ends MPI. After a failure do not call it: a process that exits without it ends the other ranks. */
  close(): Promise<void>;
}

/**
 * The world that a launcher started this process in; a single process if none did. Call it once, before a backend is started: it
 * divides the processor's threads among the ranks of a machine, unless BLIP2_NUM_THREADS is set or the launcher has bound each rank.
 * @throws Error if several processes were started and MPI is not available, or sees another number of them
 */
export async function openWorld(env: NodeJS.ProcessEnv = process.env): Promise<OpenWorld> {
  const launch = launchOf(env);
  if (!launch) return { ...alone, close: async () => undefined };
  shareThreads(launch, env);
  const addon = loadAddon(env);
  const { rank, size, library } = await addon.start();
  if (size !== launch.size)
    throw new Error(
      `${launch.by} is ${launch.size}, but MPI (${firstLine(library)}) sees ${size} process${size === 1 ? '' : 'es'}: the ` +
        'launcher belongs to another MPI than the addon was compiled with. With srun, try --mpi=pmix or --mpi=pmi2; else start ' +
        'with the mpirun of this MPI, or compile again: npx nx run distributed:compile',
    );
  const release = abortAtExit(addon);
  const threads = { own: Number(env.BLIP2_NUM_THREADS ?? availableParallelism()), cores: cpus().length };
  return {
    ...worldOver(addon, rank, size),
    library: firstLine(library),
    threads,
    close: async () => {
      await addon.finish();
      release();
    },
  };
}

/** Ends all ranks when this process exits before it has ended MPI. Node prints an uncaught error only after that, so it is printed here. */
function abortAtExit(addon: MpiAddon): () => void {
  const abort = (code: number) => addon.abort(code || 1);
  const print = (error: Error) => void process.stderr.write(`${error.stack ?? String(error)}\n`);
  process.once('exit', abort);
  process.once('uncaughtExceptionMonitor', print);
  return () => {
    process.off('exit', abort);
    process.off('uncaughtExceptionMonitor', print);
  };
}

const firstLine = (text: string) =>
  text
    .split(/[\n,]/)[0]
    .replace(/^MPICH Version:\s*/, 'MPICH ')
    .trim();

/** The same calls with tensors instead of arrays. */
export function worldOver(addon: MpiAddon, rank: number, size: number): World {
  return {
    rank,
    size,
    sum: async (tensors) => {
      const values = await Promise.all(tensors.map(floats));
      await addon.sum(values);
      const sums = tensors.map(({ shape }, i) => tensor(values[i], shape));
      dispose(tensors);
      return sums;
    },
    any: (flag) => addon.any(flag),
    barrier: () => addon.barrier(),
  };
}

/** A copy of the values: the sum is written into it. */
async function floats(x: Tensor): Promise<Float32Array> {
  if (x.dtype !== 'float32') throw new Error(`sum: expected float32 tensors, found ${x.dtype}`);
  return new Float32Array((await x.data()) as Float32Array);
}

/** Ranks that were not bound to cores of their own would otherwise start a thread for each core that all of them may use. */
function shareThreads({ local }: Launch, env: NodeJS.ProcessEnv): void {
  const allowed = availableParallelism();
  if (env.BLIP2_NUM_THREADS !== undefined || local === undefined || allowed * local <= cpus().length) return;
  env.BLIP2_NUM_THREADS = String(Math.max(1, Math.floor(allowed / local)));
}

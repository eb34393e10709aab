/** The compiled MPI addon (native/mpi.cc), loaded when a launcher has started several processes. */
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';

export interface MpiAddon {
  /** starts MPI on the addon's own thread; once in a process */
  start(): Promise<{ rank: number; size: number; library: string }>;
  /** sums each array over all ranks, in place; the arrays must not be used before the promise settles */
  sum(tensors: Float32Array[]): Promise<void>;
  any(flag: boolean): Promise<boolean>;
  barrier(): Promise<void>;
  /** waits for all ranks and ends MPI */
  finish(): Promise<void>;
  /** ends all ranks at once, this one with them; returns after two seconds if MPI cannot */
  abort(code: number): void;
}

const COMPILE =
  'npx nx run distributed:compile (in a checkout), or node node_modules/@blip2/distributed/build.mjs';

/**
 * The addon. BLIP2_MPI_ADDON names another file, compiled with another MPI.
 * @throws Error if it is not compiled or does not load, with what to do
 */
export function loadAddon(env: NodeJS.ProcessEnv = process.env): MpiAddon {
  const file = env.BLIP2_MPI_ADDON ?? fileURLToPath(new URL('../build/blip2_mpi.node', import.meta.url));
  if (!existsSync(file))
    throw new Error(
      `several processes were started, which needs MPI, but ${file} is not there. Compile it with the MPI of this machine ` +
        `(Debian: apt-get install libopenmpi-dev openmpi-bin): ${COMPILE}`,
    );
  const module = { exports: {} };
  try {
    // Open MPI loads its own parts later, and these look for its symbols among the global ones
    process.dlopen(module, file, constants.dlopen.RTLD_NOW | constants.dlopen.RTLD_GLOBAL);
  } catch (error) {
    throw new Error(
      `${file} does not load: ${(error as Error).message}. Compile it again with the MPI of this machine: ${COMPILE}`,
      { cause: error },
    );
  }
  return module.exports as MpiAddon;
}

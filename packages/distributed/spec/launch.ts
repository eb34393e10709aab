/** Starts programs with mpirun in specs. */
import { spawn, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const build = fileURLToPath(new URL('../build.mjs', import.meta.url));

/** Open MPI refuses root, as in containers, unless told; more ranks than cores are allowed. Other MPIs ignore these. */
export const MPI_ENV = {
  OMPI_ALLOW_RUN_AS_ROOT: '1',
  OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: '1',
  OMPI_MCA_rmaps_base_oversubscribe: '1',
  OMPI_MCA_hwloc_base_binding_policy: 'none',
  OMPI_MCA_btl_vader_single_copy_mechanism: 'none',
};

/** Compiles the addon with the MPI of this machine; undefined where there is none. */
export const mpiAddon = () => compiled('mpirun', 'mpicxx', 'blip2_mpi.node');

/** As Debian names the programs of MPICH beside those of Open MPI. */
export const MPICH = 'mpirun.mpich';
export const mpichAddon = () => compiled(MPICH, 'mpicxx.mpich', 'blip2_mpich.node');

function compiled(run: string, MPICXX: string, name: string): string | undefined {
  const has = (program: string) => spawnSync(program, ['--version']).status === 0;
  if (!has(run) || !has(MPICXX)) return undefined;
  const addon = fileURLToPath(new URL(`../build/${name}`, import.meta.url));
  const env = { ...process.env, MPICXX };
  const { status, stderr } = spawnSync(process.execPath, [build, '--output', addon], {
    encoding: 'utf8',
    env,
  });
  if (status !== 0) throw new Error(stderr);
  return addon;
}

export interface Job {
  code: number | null;
  stdout: string;
  stderr: string;
  /** seconds from the start to the end of mpirun */
  seconds: number;
}

interface Watch {
  /** default: the program of this name */
  mpirun?: string;
  env?: NodeJS.ProcessEnv;
  /** is given the process of mpirun */
  started?: (pid: number) => void;
  onStderr?: (text: string) => void;
}

/** Runs `node program args` on `ranks` ranks. */
export async function mpirun(
  ranks: number,
  argv: string[],
  { mpirun: program = 'mpirun', env, started, onStderr }: Watch = {},
): Promise<Job> {
  const begin = performance.now();
  const child = spawn(program, ['-n', String(ranks), process.execPath, ...argv], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, FORCE_COLOR: undefined, NO_COLOR: '1', ...MPI_ENV, ...env },
  });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => void (stdout += chunk));
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk;
    onStderr?.(String(chunk));
  });
  if (child.pid !== undefined) started?.(child.pid);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  return { code, stdout, stderr, seconds: (performance.now() - begin) / 1000 };
}

/** Starts programs with mpirun in specs. */
import { spawn, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const build = fileURLToPath(new URL('../build.mjs', import.meta.url));

/** Open MPI refuses root, as in containers, unless told; more ranks than cores are allowed. Other MPIs ignore these. */
const ENV = {
  OMPI_ALLOW_RUN_AS_ROOT: '1',
  OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: '1',
  OMPI_MCA_rmaps_base_oversubscribe: '1',
  OMPI_MCA_hwloc_base_binding_policy: 'none',
  OMPI_MCA_btl_vader_single_copy_mechanism: 'none',
};

/** Compiles the addon; undefined where this machine has no MPI. */
export function mpiAddon(): string | undefined {
  const has = (name: string) => spawnSync(name, ['--version']).status === 0;
  if (!has('mpirun') || !has('mpicxx')) return undefined;
  const addon = fileURLToPath(new URL('../build/blip2_mpi.node', import.meta.url));
  const { status, stderr } = spawnSync(process.execPath, [build], { encoding: 'utf8' });
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
  env?: NodeJS.ProcessEnv;
  /** is given the process of mpirun */
  started?: (pid: number) => void;
  onStderr?: (text: string) => void;
}

/** Runs `node program args` on `ranks` ranks. */
export async function mpirun(
  ranks: number,
  argv: string[],
  { env, started, onStderr }: Watch = {},
): Promise<Job> {
  const begin = performance.now();
  const child = spawn('mpirun', ['-n', String(ranks), process.execPath, ...argv], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, FORCE_COLOR: undefined, NO_COLOR: '1', ...ENV, ...env },
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

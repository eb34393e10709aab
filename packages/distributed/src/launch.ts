/** What a launcher (mpirun, srun) left in the environment of a process, which can be read before MPI starts. */

export interface Launch {
  /** processes that were started together */
  size: number;
  rank: number;
  /** processes on this machine, where the launcher says it */
  local?: number;
  /** the variable that says the size */
  by: string;
}

/** Variables of Open MPI, of MPICH's and Intel's hydra, and of Slurm's steps. In a batch script itself Slurm sets no step. */
const LAUNCHERS = [
  { size: 'OMPI_COMM_WORLD_SIZE', rank: 'OMPI_COMM_WORLD_RANK', local: 'OMPI_COMM_WORLD_LOCAL_SIZE' },
  { size: 'PMI_SIZE', rank: 'PMI_RANK', local: 'MPI_LOCALNRANKS' },
  { size: 'SLURM_STEP_NUM_TASKS', rank: 'SLURM_PROCID', local: 'SLURM_STEP_TASKS_PER_NODE' },
];

/** The launch of this process, or undefined if it was started alone. */
export function launchOf(env: NodeJS.ProcessEnv = process.env): Launch | undefined {
  for (const names of LAUNCHERS) {
    const [size, rank, local] = [names.size, names.rank, names.local].map((name) => countOf(env[name]));
    if (size !== undefined && rank !== undefined)
      return size > 1 ? { size, rank, local, by: names.size } : undefined;
  }
  return undefined;
}

/** "4", or "4(x2)" as Slurm writes tasks per node. */
function countOf(text: string | undefined): number | undefined {
  const digits = /^(\d+)(\(x\d+\))?$/.exec(text ?? '');
  return digits ? Number(digits[1]) : undefined;
}

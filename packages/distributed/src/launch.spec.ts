import { describe, expect, it } from 'vitest';
import { launchOf } from './launch';

describe('launchOf', () => {
  it.each([
    [
      'Open MPI',
      { OMPI_COMM_WORLD_SIZE: '4', OMPI_COMM_WORLD_RANK: '3', OMPI_COMM_WORLD_LOCAL_SIZE: '2' },
      2,
    ],
    ['MPICH', { PMI_SIZE: '4', PMI_RANK: '3', MPI_LOCALNRANKS: '2' }, 2],
    ['srun', { SLURM_STEP_NUM_TASKS: '4', SLURM_PROCID: '3', SLURM_STEP_TASKS_PER_NODE: '2(x2)' }, 2],
    [
      'srun on unlike nodes',
      { SLURM_STEP_NUM_TASKS: '4', SLURM_PROCID: '3', SLURM_STEP_TASKS_PER_NODE: '3,1' },
      undefined,
    ],
  ])('reads rank and size of %s', (_, env, local) => {
    expect(launchOf(env)).toMatchObject({ size: 4, rank: 3, local });
  });

  it.each([
    ['no launcher', {}],
    ['one process', { OMPI_COMM_WORLD_SIZE: '1', OMPI_COMM_WORLD_RANK: '0' }],
    ['a batch script of Slurm, outside a step', { SLURM_NTASKS: '8', SLURM_PROCID: '0' }],
    ['an array job', { SLURM_ARRAY_TASK_ID: '3', SLURM_ARRAY_TASK_COUNT: '8', SLURM_PROCID: '0' }],
  ])('is alone with %s', (_, env) => expect(launchOf(env)).toBeUndefined());
});

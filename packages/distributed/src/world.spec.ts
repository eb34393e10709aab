import { spawnSync } from 'node:child_process';
import { beforeAll, describe, expect, it } from 'vitest';
import { bundle } from '../../../tsup.config';
import { mpiAddon, MPICH, mpichAddon, mpirun } from '../spec/launch';
import { openWorld } from './world';

const addon = mpiAddon();
const mpich = mpichAddon();
let program: string;
beforeAll(async () => void (program = await bundle(new URL('../spec/ranks.ts', import.meta.url))), 60_000);

interface Found {
  rank: number;
  size: number;
  found: unknown;
}
const foundBy = (stdout: string) =>
  stdout
    .split('\n')
    .filter(Boolean)
    .map((row) => JSON.parse(row) as Found)
    .sort((a, b) => a.rank - b.rank);
const SUMMED = { shapes: [[], [3], [0], [1_000_003], [2, 5]], wrong: [0, 0, 0, 0, 0] };

describe('a process that was started alone', () => {
  it('is the whole world, without MPI', async () => {
    const world = await openWorld({});
    expect([world.rank, world.size, world.library]).toEqual([0, 1, undefined]);
    await world.close();
  });
});

describe('several processes without MPI', () => {
  it('are refused with what to install', async () => {
    const env = {
      OMPI_COMM_WORLD_SIZE: '2',
      OMPI_COMM_WORLD_RANK: '0',
      BLIP2_MPI_ADDON: '/nowhere/mpi.node',
    };
    await expect(openWorld(env)).rejects.toThrow(/nowhere\/mpi\.node is not there\. .*libopenmpi-dev/);
  });
});

describe.skipIf(!addon)('ranks started by mpirun', () => {
  async function ranks(size: number, name: string) {
    const job = await mpirun(size, [program, name], { env: { BLIP2_MPI_ADDON: addon } });
    return { ...job, found: foundBy(job.stdout) };
  }

  it.each([2, 3])('sum tensors in order of rank: %i ranks', { timeout: 60_000 }, async (size) => {
    const { found, stderr } = await ranks(size, 'sum');
    expect(found.length, stderr).toBe(size);
    for (const one of found) expect(one.found).toEqual(SUMMED);
  });

  it('agree on a flag of one of them', { timeout: 60_000 }, async () => {
    const { found, stderr } = await ranks(2, 'any');
    expect(
      found.map((one) => one.found),
      stderr,
    ).toEqual([
      [false, true, true],
      [false, true, true],
    ]);
  });

  it(
    'wait without stopping the event loop and without using the processor',
    { timeout: 60_000 },
    async () => {
      const { found } = await ranks(2, 'waiting');
      const { turns, busy } = found[1].found as { turns: number; busy: number };
      expect(turns).toBeGreaterThan(10);
      expect(busy).toBeLessThan(0.6); // of a second that rank 0 sleeps
    },
  );

  it.each([
    ['fails', 'failing', 1, 'a rank that fails'],
    ['leaves', 'leaving', 7, ''],
  ])('end together when one %s', { timeout: 60_000 }, async (_, what, code, message) => {
    const job = await mpirun(2, [program, what], { env: { BLIP2_MPI_ADDON: addon } });
    expect(job.code).toBe(code);
    expect(job.stdout).not.toContain('went on');
    expect(job.stderr).toContain(message);
    // whatever the launcher does with a process that ends alone; Open MPI cannot always show its own message
    expect(job.stderr).toMatch(/MPI_ABORT was invoked on rank 1|show_help/);
    expect(job.seconds).toBeLessThan(30);
  });

  it('are refused if the launcher belongs to another MPI', () => {
    const env = { ...process.env, BLIP2_MPI_ADDON: addon, PMI_SIZE: '4', PMI_RANK: '1' };
    const { status, stderr } = spawnSync(process.execPath, [program, 'any'], { env, encoding: 'utf8' });
    expect(stderr).toMatch(/PMI_SIZE is 4, but MPI \(.+\) sees 1 process: .*--mpi=pmix/);
    expect(status).toBe(1);
  });
});

describe.skipIf(!mpich)('ranks started by MPICH', () => {
  it('sum tensors in order of rank, and end together when one fails', { timeout: 60_000 }, async () => {
    const watch = { mpirun: MPICH, env: { BLIP2_MPI_ADDON: mpich } };
    const { stdout, stderr } = await mpirun(3, [program, 'sum'], watch);
    const found = foundBy(stdout);
    expect(found.length, stderr).toBe(3);
    for (const one of found) expect(one.found).toEqual(SUMMED);
    const job = await mpirun(2, [program, 'failing'], watch);
    expect([job.code === 0, job.stdout]).toEqual([false, '']);
  });
});

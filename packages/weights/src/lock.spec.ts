import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { bundle } from '../../../tsup.config';
import type { LockedError } from './lock';
import { lockFile } from './lock';

let folder: string;
let script: string;
let locks = 0;
const fresh = () => join(folder, `lock-${locks++}`);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'locks-'));
  script = await bundle(new URL('../spec/lock-process.ts', import.meta.url));
});
afterAll(() => rm(folder, { recursive: true }));

/** A process that takes the lock, and its first line of output. */
async function holder(path: string, until: 'stay' | 'exit'): Promise<{ child: ChildProcess; line: string }> {
  const child = spawn(process.execPath, [script, path, until], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [chunk] = (await once(child.stdout, 'data')) as [Buffer];
  return { child, line: chunk.toString().trim() };
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<unknown> {
  const ended = once(child, 'exit');
  child.kill(signal);
  return (await ended)[1];
}

const content = (o: object) =>
  JSON.stringify({ host: hostname(), pid: 1, start: '', since: '2026-01-01T00:00:00.000Z', ...o });

/** The error of taking the lock. */
const refusal = (path: string) =>
  lockFile(path).then(
    () => expect.unreachable(),
    (error: unknown) => error as LockedError,
  );

describe('a lock', () => {
  it('has one holder, in this process or another, and is free again when it is released', async () => {
    const path = fresh();
    const release = await lockFile(path);
    expect((await refusal(path)).message).toContain(`this process (${process.pid}) is already writing here`);
    const { line } = await holder(path, 'exit');
    expect(line).toMatch(new RegExp(`^${path}: process ${process.pid} on ${hostname()} has been writing`));
    await release();
    await release();
    expect(existsSync(path)).toBe(false);
    await (
      await lockFile(path)
    )();
  });

  it('can be waited for', async () => {
    const path = fresh();
    const { child } = await holder(path, 'stay');
    const told: string[] = [];
    const waiting = lockFile(path, { waitMs: 60_000, onWait: (by) => told.push(by) });
    setTimeout(() => void child.kill('SIGTERM'), 300);
    await (
      await waiting
    )();
    expect(told).toEqual([expect.stringContaining(`process ${child.pid} on`)]);
  });

  it.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)(
    'is released at %s, which ends the process',
    async (name) => {
      const path = fresh();
      const { child } = await holder(path, 'stay');
      expect(await end(child, name)).toBe(name);
      expect(existsSync(path)).toBe(false);
    },
  );

  it('is released when the process exits', async () => {
    const path = fresh();
    const { child, line } = await holder(path, 'exit');
    if (child.exitCode === null) await once(child, 'exit');
    expect([line, existsSync(path)]).toEqual(['held', false]);
  });

  it('of a killed process is taken over, by one of several', async () => {
    const path = fresh();
    const { child } = await holder(path, 'stay');
    await end(child, 'SIGKILL');
    expect(existsSync(path)).toBe(true);
    const taken = await Promise.allSettled(Array.from({ length: 5 }, () => lockFile(path)));
    const releases = taken.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
    expect(releases).toHaveLength(1);
    await releases[0]!();
    expect((await readdir(folder)).filter((name) => name.includes('.tmp'))).toEqual([]);
  });

  it.runIf(process.platform === 'linux')(
    'of an earlier process with the same number is taken over',
    async () => {
      const path = fresh();
      await writeFile(path, content({ pid: process.pid, start: 'an earlier boot 12' }));
      await (
        await lockFile(path)
      )();
    },
  );

  it('that was left while it was being written is taken over', async () => {
    const path = fresh();
    await writeFile(path, '{"host":');
    await (
      await lockFile(path)
    )();
  });

  it.each([
    ['an earlier start of this job of Slurm is taken over', { id: 'a 7', restarts: 0 }, false],
    ['this start of the job is kept', { id: 'a 7', restarts: 1 }, true],
    ['another job is kept', { id: 'a 8', restarts: 0 }, true],
  ])('of another host and %s', async (_, job, kept) => {
    const path = fresh();
    await writeFile(path, content({ host: 'elsewhere', pid: 12, job }));
    vi.stubEnv('SLURM_CLUSTER_NAME', 'a');
    vi.stubEnv('SLURM_JOB_ID', '7');
    vi.stubEnv('SLURM_RESTART_COUNT', '1');
    try {
      if (kept) expect((await refusal(path)).message).toContain('on elsewhere');
      else await (await lockFile(path))();
    } finally {
      vi.unstubAllEnvs();
    }
  });

  it('of another host is kept, and the error says what to do', async () => {
    const path = fresh();
    await writeFile(path, content({ host: 'elsewhere', pid: 99999999 }));
    const { message } = await refusal(path);
    expect(message).toMatch(
      /process 99999999 on elsewhere .* if it does not, delete this file and try again$/,
    );
    expect(await readFile(path, 'utf8')).toContain('elsewhere');
  });
});

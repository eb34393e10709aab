/** Several threads of JavaScript use the addon at once: each call has its own precision, and each thread its instruction set. */
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import type { Precision } from '@blip2/nn';
import { addon, levels, loaded, numbers } from '../spec/fixtures';

const [M, N, K] = [37, 96, 160];
const CALLS = 400;
const file =
  process.env.BLIP2_NATIVE_ADDON ?? fileURLToPath(new URL('../build/blip2_native.node', import.meta.url));

const [a, b] = [numbers(M * K, 1), numbers(K * N, 2)];
const product = (precision: Precision, level: string): Float32Array => {
  const before = addon.instructionSet();
  const c = new Float32Array(M * N);
  addon.setInstructionSet(level);
  addon.gemm(a, false, b, false, null, c, 1, M, N, K, false, false, precision);
  addon.setInstructionSet(before);
  return c;
};

/** A thread that repeats the product until `stop` is set, and counts the results that differ. */
const PROGRAM = `
  const { parentPort, workerData } = require('node:worker_threads');
  const { file, level, precision, a, b, expected, sizes: [M, N, K] } = workerData;
  const addon = require(file);
  addon.setInstructionSet(level);
  const c = new Float32Array(M * N);
  const stop = new Int32Array(workerData.stop);
  let [calls, wrong] = [0, 0];
  for (; calls < ${CALLS} || !Atomics.load(stop, 0); calls++) {
    addon.gemm(a, false, b, false, null, c.fill(NaN), 1, M, N, K, false, false, precision);
    if (c.some((value, i) => value !== expected[i])) wrong++;
    if (calls === 0) parentPort.postMessage('started');
  }
  parentPort.postMessage({ calls, wrong });
`;

interface Job {
  precision: Precision;
  level: string;
}

function start({ precision, level }: Job, stop: SharedArrayBuffer) {
  const expected = product(precision, level);
  const workerData = { file, level, precision, a, b, expected, stop, sizes: [M, N, K] };
  const worker = new Worker(PROGRAM, { eval: true, workerData });
  const started = new Promise((resolve) => worker.once('message', resolve));
  const ended = new Promise<{ calls: number; wrong: number }>((resolve, reject) => {
    worker.on('message', (found: 'started' | { calls: number; wrong: number }) => {
      if (found !== 'started') resolve(found);
    });
    worker.on('error', reject);
  });
  return { started, ended };
}

const title = loaded.addon ? 'threads' : `threads (SKIPPED: ${loaded.why})`;
describe.skipIf(!loaded.addon)(title, () => {
  const best = levels.at(-1)!;
  const jobs: Job[] = [
    { precision: 'float32', level: 'portable' },
    { precision: 'float32', level: best },
    ...(levels.includes('avx512bf16')
      ? ([
          { precision: 'bfloat16', level: 'avx512bf16' },
          { precision: 'float32', level: 'avx512bf16' },
        ] as const)
      : []),
  ];

  it('the results of one thread differ by precision', () => {
    if (!levels.includes('avx512bf16')) return;
    expect(product('bfloat16', 'avx512bf16')).not.toEqual(product('float32', 'avx512bf16'));
  });

  it('calls of different precision and instruction set, one after the other and in several threads', async () => {
    const stop = new SharedArrayBuffer(4);
    const others = jobs.map((job) => start(job, stop));
    await Promise.all(others.map(({ started }) => started));
    const expected = jobs.map(({ precision, level }) => product(precision, level));
    let wrong = 0;
    for (let i = 0; i < CALLS; i++) {
      const { precision, level } = jobs[i % jobs.length]!;
      const found = product(precision, level);
      if (found.some((value, at) => value !== expected[i % jobs.length]![at])) wrong++;
    }
    Atomics.store(new Int32Array(stop), 0, 1);
    const counts = await Promise.all(others.map(({ ended }) => ended));
    expect(wrong).toBe(0);
    expect(counts.map((count) => count.wrong)).toEqual(jobs.map(() => 0));
    expect(Math.min(...counts.map(({ calls }) => calls))).toBeGreaterThanOrEqual(CALLS);
    expect(addon.instructionSet()).toBe(best);
  });
});

// Slowdown of a step when other processes keep cores busy: `node bench/busy-neighbour.mjs [neighbours] [rounds]`.
// Times a chain of matmuls and light kernels, as in a step, alternately with and without neighbours. Prints the median ratio and, for
// comparison, the ratio with a fair scheduler. Run it on an otherwise idle machine.
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { availableParallelism, loadavg } from 'node:os';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';

const addon = createRequire(import.meta.url)('../build/blip2_native.node');
const neighbours = Number(process.argv[2] ?? 1);
const rounds = Number(process.argv[3] ?? 7);
const cores = availableParallelism();
const threads = Number(process.env.BLIP2_NUM_THREADS ?? cores);
addon.setThreads(threads);

const [M, D, F] = [736, 192, 768];
const array = (n) => Float32Array.from({ length: n }, (_, i) => Math.sin(i));
const [x, up, down, ones] = [array(M * D), array(F * D), array(D * F), array(D)];
const [h, a, y, z] = [M * F, M * F, M * D, M * D].map((n) => new Float32Array(n));
const [mean, rstd] = [new Float32Array(M), new Float32Array(M)];

function step() {
  for (let layer = 0; layer < 24; layer++) {
    addon.gemm(x, false, up, true, null, h, 1, M, F, D, false, false);
    addon.gelu(h, a);
    addon.gemm(a, false, down, true, null, y, 1, M, D, F, false, false);
    addon.layerNorm(y, ones, ones, 1e-5, z, mean, rstd, M, D);
  }
}

function milliseconds() {
  const begin = performance.now();
  for (let i = 0; i < 10; i++) step();
  return (performance.now() - begin) / 10;
}

const median = (values) => values.sort((p, q) => p - q)[values.length >> 1];

milliseconds();
const [alone, crowded] = [[], []];
for (let round = 0; round < rounds; round++) {
  alone.push(milliseconds());
  const busy = Array.from({ length: neighbours }, () => spawn(process.execPath, ['-e', 'for (;;);']));
  await sleep(300);
  crowded.push(milliseconds());
  for (const child of busy) child.kill('SIGKILL');
  await sleep(100);
}
const fair = Math.max(1, (threads + neighbours) / cores) / Math.max(1, threads / cores);
const ratio = median(crowded.map((t, i) => t / alone[i]));
console.log(`${threads} threads on ${cores} cores, load before: ${loadavg()[0].toFixed(1)}`);
console.log(
  `a step alone ${median(alone).toFixed(1)} ms, beside ${neighbours} busy: ${median(crowded).toFixed(1)} ms`,
);
console.log(`slower by a factor of ${ratio.toFixed(2)}; with a fair scheduler, ${fair.toFixed(2)}`);

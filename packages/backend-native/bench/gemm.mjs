// GFLOP/s of the float32 matrix product at shapes of this project, in the three forms of a training step.
// node bench/gemm.mjs [threads] [instruction set]; `python bench/gemm.py [threads]` measures PyTorch on the same work.
import { createRequire } from 'node:module';
import { performance } from 'node:perf_hooks';

const addon = createRequire(import.meta.url)('../build/blip2_native.node');
const threads = Number(process.argv[2] ?? 2);
addon.setThreads(threads);
if (process.argv[3]) addon.setInstructionSet(process.argv[3]);

/** x [M, in] and weight [out, in]. */
const shapes = [
  [1560, 192, 768],
  [1560, 768, 192],
  [1560, 192, 192],
  [2048, 1408, 6144],
  [512, 2560, 2560],
  [1560, 192, 16],
];

const random = (n) => Float32Array.from({ length: n }, () => Math.random() - 0.5);

/** Seconds of the fastest call: other work on the machine only ever adds. */
function measure(call) {
  for (let i = 0; i < 2; i++) call();
  const times = [];
  for (const end = performance.now() + 600; times.length < 5 || performance.now() < end;) {
    const start = performance.now();
    call();
    times.push((performance.now() - start) / 1000);
  }
  return Math.min(...times);
}

console.log(`native, ${addon.instructionSet()}, ${threads} threads: GFLOP/s`);
for (const [M, K, N] of shapes) {
  const x = random(M * K);
  const weight = random(N * K);
  const y = random(M * N);
  const dx = new Float32Array(M * K);
  const dw = new Float32Array(N * K);
  const gflop = (2 * M * K * N) / 1e9;
  const forms = [
    ['x·Wᵀ', () => addon.gemm(x, false, weight, true, null, y, 1, M, N, K, false, false)],
    ['dy·W', () => addon.gemm(y, false, weight, false, null, dx, 1, M, K, N, false, false)],
    ['dyᵀ·x', () => addon.gemm(y, true, x, false, null, dw, 1, N, K, M, false, false)],
  ];
  const rates = forms.map(([name, call]) => `${name} ${(gflop / measure(call)).toFixed(0).padStart(4)}`);
  console.log(`${`M=${M} in=${K} out=${N}`.padEnd(28)} ${rates.join('   ')}`);
}

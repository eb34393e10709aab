// Matmul in float32 and bfloat16, with the weight packed at each call or once before: GFLOP/s and ratios.
// The variants alternate call by call, so that other work on the machine affects all of them.
// node bench/precision.mjs [threads]
import { createRequire } from 'node:module';
import { performance } from 'node:perf_hooks';

const addon = createRequire(import.meta.url)('../build/blip2_native.node');
const threads = Number(process.argv[2] ?? 2);
addon.setThreads(threads);

/** x [M, in] and weight [out, in]. */
const shapes = [
  ...[46, 184, 736, 2944].flatMap((M) => [
    [M, 192, 192],
    [M, 192, 768],
    [M, 768, 192],
    [M, 768, 768],
  ]),
  [1472, 192, 16],
  [46, 2560, 2560],
  [512, 2560, 2560],
];
const precisions = ['float32', 'bfloat16'];

const random = (n) => Float32Array.from({ length: n }, () => Math.random() - 0.5);

function packed(weight, transposed, N, K, precision) {
  const to = new Float32Array(addon.packedLength(N, K, precision));
  addon.pack(weight, transposed, to, N, K, precision);
  return to;
}

/** Seconds of the fastest call of each variant, since other work can only slow calls down. */
function race(variants) {
  const best = variants.map(() => Infinity);
  const end = performance.now() + 200;
  for (let round = 0; round < 8 || performance.now() < end; round++)
    variants.forEach((call, i) => {
      const start = performance.now();
      call();
      best[i] = Math.min(best[i], (performance.now() - start) / 1000);
    });
  return best;
}

function forms(M, K, N) {
  const [x, weight, y] = [random(M * K), random(N * K), random(M * N)];
  const [dx, dw] = [new Float32Array(M * K), new Float32Array(N * K)];
  const packs = Object.fromEntries(
    precisions.map((p) => [
      p,
      { forward: packed(weight, true, N, K, p), backward: packed(weight, false, K, N, p) },
    ]),
  );
  const variants = (plain, ready) =>
    precisions.flatMap((precision) => [
      () => plain(precision),
      ...(ready ? [() => ready(packs[precision], precision)] : []),
    ]);
  return {
    'x·Wᵀ': variants(
      (p) => addon.gemm(x, false, weight, true, null, y, 1, M, N, K, false, false, p),
      ({ forward }, p) => addon.timesPacked(x, forward, null, 'none', null, y, M, N, K, p),
    ),
    'dy·W': variants(
      (p) => addon.gemm(y, false, weight, false, null, dx, 1, M, K, N, false, false, p),
      ({ backward }, p) => addon.timesPacked(y, backward, null, 'none', null, dx, M, K, N, p),
    ),
    'dyᵀ·x': variants((p) => addon.gemm(y, true, x, false, null, dw, 1, N, K, M, false, false, p)),
  };
}

console.log(
  `native, ${addon.instructionSet()}, ${threads} threads: GFLOP/s, and in brackets the ratio to float32`,
);
const tables = {};
for (const [M, K, N] of shapes)
  for (const [form, variants] of Object.entries(forms(M, K, N))) {
    const rates = race(variants).map((seconds) => (2 * M * K * N) / 1e9 / seconds);
    const [plain, ...others] = rates.length === 4 ? rates : [rates[0], undefined, rates[1], undefined];
    const cell = (rate) => (rate ? `${rate.toFixed(0)} (${(rate / plain).toFixed(2)})` : '');
    (tables[form] ??= []).push(
      `| ${M}, ${K} → ${N} | ${plain.toFixed(0)} | ${others.map(cell).join(' | ')} |`,
    );
  }
for (const [form, rows] of Object.entries(tables)) {
  console.log(`\n### ${form}\n`);
  console.log('| x [M, in], W [out, in] | float32 | float32, packed | bfloat16 | bfloat16, packed |');
  console.log(`|${' --- |'.repeat(5)}\n${rows.join('\n')}`);
}

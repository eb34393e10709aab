// Matmuls with weights in 8 bits beside those with stored bfloat16 at BLIP-2's shapes: y = x·Wᵀ and dx = dy·W, each alone.
//   node bench/int8.mjs [--rounds 7] [--milliseconds 60] [--only "M, in, out; …"]
// One thread, processor time; they alternate, round by round, and the fastest call of a round counts. A rate is the median over the
// rounds, a ratio the median of the ratios of each round. The peak is that of `npm run bench -- peak --threads 1`.
import { createRequire } from 'node:module';
import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '7' },
    milliseconds: { type: 'string', default: '60' },
    only: { type: 'string', default: '' },
  },
});
const addon = createRequire(import.meta.url)('../build/blip2_native.node');
addon.setThreads(1);

/** [M, in, out]: the vision tower with one and four pictures, and OPT-2.7b. */
const shapes = [
  ...[257, 1028].flatMap((M) => [
    [M, 1408, 4224],
    [M, 1408, 1408],
    [M, 1408, 6144],
    [M, 6144, 1408],
  ]),
  ...[44, 176].flatMap((M) => [
    [M, 2560, 2560],
    [M, 2560, 10240],
    [M, 10240, 2560],
  ]),
].filter((shape) => options.only.split('; ').some((text) => shape.join(', ').includes(text)));

const random = (count, scale) => Float32Array.from({ length: count }, () => (Math.random() - 0.5) * scale);
const bytesOf = (floats) => ({ bytes: new Uint8Array(floats.buffer) });

/** The weight [N, K] in both encodings, with the precision in which each is multiplied. */
function weights(N, K) {
  const bits = Uint16Array.from(
    { length: N * K },
    () => 0x3c00 | (Math.random() * 0x100) | (Math.random() < 0.5 ? 0x8000 : 0),
  );
  const levels = Int8Array.from({ length: N * K }, () => Math.round((Math.random() - 0.5) * 254));
  const int8 = [
    bytesOf(levels),
    bytesOf(random(N, 0.01).map(Math.abs)),
    bytesOf(new Float32Array(K).fill(1)),
  ];
  return [
    ['bfloat16', addon.storeWeight('BF16', N, K, [bytesOf(bits)], false)],
    ['int8', addon.storeWeight('INT8', N, K, int8, false)],
  ];
}

function fastest(call) {
  let best = Infinity;
  const end = performance.now() + Number(options.milliseconds);
  for (let i = 0; i < 3 || performance.now() < end; i++) {
    const before = process.cpuUsage();
    call();
    const { user, system } = process.cpuUsage(before);
    best = Math.min(best, (user + system) / 1e6);
  }
  return best;
}

const median = (numbers) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1];

console.log(`${addon.instructionSet()}, one thread, GFLOP/s\n`);
console.log(
  '| M, in → out | x·Wᵀ bfloat16 | int8 | ratio | dy·W bfloat16 | int8 | ratio |\n|---|---|---|---|---|---|---|',
);
for (const [M, K, N] of shapes) {
  const [x, y, dx] = [random(M * K, 1), random(M * N, 1), new Float32Array(M * K)];
  const made = new Float32Array(M * N);
  const calls = weights(N, K).flatMap(([precision, stored]) => [
    () => addon.timesWeight(x, stored, true, null, 'none', null, made, M, N, K, precision),
    () => addon.timesWeight(y, stored, false, null, 'none', null, dx, M, K, N, precision),
  ]);
  const times = calls.map(() => []);
  for (let round = 0; round <= Number(options.rounds); round++)
    calls.forEach((call, i) => {
      const seconds = fastest(call);
      if (round > 0) times[i].push(seconds);
    });
  const rate = (i) => ((2 * M * K * N) / 1e9 / median(times[i])).toFixed(0);
  const ratio = (i) => `${median(times[i].map((seconds, r) => seconds / times[i + 2][r])).toFixed(2)}x`;
  const cells = [0, 1].flatMap((i) => [rate(i), rate(i + 2), ratio(i)]);
  console.log(`| ${[`${M}, ${K} → ${N}`, ...cells].join(' | ')} |`);
}

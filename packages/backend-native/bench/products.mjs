// Matmul y [M, out] = x [M, in] · weight [out, in]ᵀ at BLIP-2's shapes: this addon, oneDNN and PyTorch in one run.
//   node bench/products.mjs [--threads 1] [--rounds 5] [--milliseconds 60] [--python PATH] [--only "M, in, out; …"] [--types LIST]
// oneDNN is included if build/onednn-bench exists (see bench/onednn.cc), PyTorch if --python is the path of a Python with torch.
// On a busy machine, run all of them on one core: nice -n -5 taskset -c 0 node bench/products.mjs
// They alternate, round by round. The fastest call of a round counts, since other work can only slow calls down. With one thread,
// processor time is measured. A rate is the median over the rounds, a ratio the median of the ratios of each round.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { performance } from 'node:perf_hooks';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values: options } = parseArgs({
  options: {
    threads: { type: 'string', default: '1' },
    rounds: { type: 'string', default: '5' },
    milliseconds: { type: 'string', default: '60' },
    python: { type: 'string' },
    only: { type: 'string', default: '' },
    types: { type: 'string', default: 'bfloat16,float32' },
    level: { type: 'string' },
  },
});
const milliseconds = Number(options.milliseconds);

/** [M, in, out]: the vision tower, OPT-2.7b, the Q-Former, the demo, and generation. */
const shapes = [
  ...[257, 1028, 2056].flatMap((M) => [
    [M, 1408, 6144],
    [M, 6144, 1408],
  ]),
  [1028, 1408, 4224],
  [1028, 1408, 1408],
  [256, 2560, 2560],
  [256, 2560, 10240],
  [256, 10240, 2560],
  [256, 768, 768],
  [256, 768, 3072],
  [1028, 1408, 768],
  [176, 2560, 2560],
  [2944, 192, 768],
  [2944, 768, 192],
  [2944, 192, 192],
  [1, 2560, 2560],
  [1, 2560, 10240],
  [5, 2560, 10240],
  [16, 2560, 2560],
].filter((shape) => options.only.split('; ').some((text) => shape.join(', ').includes(text)));

const addon = createRequire(import.meta.url)('../build/blip2_native.node');
addon.setThreads(Number(options.threads));
if (options.level) addon.setInstructionSet(options.level);

/** A loop, since `Float32Array.from` takes longer than matmul. */
function random(n) {
  const values = new Float32Array(n);
  for (let i = 0; i < n; i++) values[i] = Math.random() - 0.5;
  return values;
}

function median(numbers) {
  return [...numbers].sort((a, b) => a - b)[numbers.length >> 1];
}

/** Seconds of processor time with one thread, else of wall time. */
function now() {
  const { user, system } = process.cpuUsage();
  return options.threads === '1' ? (user + system) / 1e6 : performance.now() / 1000;
}

function fastestSeconds(call) {
  let best = Infinity;
  const end = performance.now() + milliseconds;
  for (let i = 0; i < 3 || performance.now() < end; i++) {
    const start = now();
    call();
    best = Math.min(best, now() - start);
  }
  return best;
}

/** The upper halves of the numbers: bfloat16 as in a file. */
function asBFloat16(values) {
  const words = new Uint16Array(values.buffer);
  const upper = new Uint16Array(values.length);
  for (let i = 0; i < upper.length; i++) upper[i] = words[2 * i + 1];
  return new Uint8Array(upper.buffer);
}

function ours(type, [M, K, N]) {
  const [x, weight, y] = [random(M * K), random(N * K), new Float32Array(M * N)];
  const packed = new Float32Array(addon.packedLength(N, K, type));
  addon.pack(weight, true, packed, N, K, type);
  const [encoding, bytes] =
    type === 'bfloat16' ? ['BF16', asBFloat16(weight)] : ['F32', new Uint8Array(weight.buffer)];
  const gradient = new Float32Array(M * K);
  const stored = addon.storeWeight(encoding, N, K, [{ bytes }], false);
  const calls = {
    packed: () => addon.timesPacked(x, packed, null, 'none', null, y, M, N, K, type),
    stored: () => addon.timesWeight(x, stored, true, null, 'none', null, y, M, N, K, type),
    'stored, dy·W': () => addon.timesWeight(y, stored, false, null, 'none', null, gradient, M, K, N, type),
  };
  return Object.entries(calls).map(([name, call]) => {
    call();
    return { name, seconds: () => fastestSeconds(call) };
  });
}

/** A baseline in its own process, which measures one shape per line of input. */
function baseline(name, program, args) {
  const child = spawn(program, args, {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, OMP_NUM_THREADS: options.threads, MKL_NUM_THREADS: options.threads },
  });
  const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    stop: () => child.stdin.end(),
    join: (type, shape) => ({
      name,
      async seconds() {
        child.stdin.write(`${type} ${shape.join(' ')} ${milliseconds}\n`);
        const { value, done } = await answers.next();
        if (done) throw new Error(`${name} has ended`);
        return Number(value);
      },
    }),
  };
}

const local = (path) => fileURLToPath(new URL(path, import.meta.url));
const baselines = [
  existsSync(local('../build/onednn-bench')) && baseline('oneDNN', local('../build/onednn-bench'), []),
  options.python && baseline('PyTorch', options.python, [local('products.py')]),
].filter(Boolean);

/** A row of the table. The ratios are relative to the first contender, the packed matmul. */
async function measure(type, shape) {
  const contenders = [...ours(type, shape), ...baselines.map((one) => one.join(type, shape))];
  const rounds = contenders.map(() => []);
  for (let round = 0; round < Number(options.rounds); round++)
    for (const [i, contender] of contenders.entries()) rounds[i].push(await contender.seconds());
  const flop = 2 * shape[0] * shape[1] * shape[2];
  const names = contenders.map(({ name }) => name);
  const rates = rounds.map((seconds) => flop / 1e9 / median(seconds));
  const ratio = (a, b) => median(rounds[a].map((_, r) => rounds[b][r] / rounds[a][r]));
  const byBaseline = names.slice(3).map((_, i) => ratio(0, 3 + i).toFixed(2));
  const byPacked = [1, 2].map((i) => `${rates[i].toFixed(0)} (${ratio(i, 0).toFixed(2)})`);
  return {
    names,
    cells: [rates[0].toFixed(0), ...byPacked, ...rates.slice(3).map((r) => r.toFixed(0)), ...byBaseline],
  };
}

console.log(
  `${addon.instructionSet()}, ${options.threads} threads, GFLOP/s; in brackets, the ratio to the packed matmul.`,
);
for (const type of options.types.split(',')) {
  let started = false;
  for (const shape of shapes) {
    const { names, cells } = await measure(type, shape);
    if (!started) {
      const heads = ['M, in → out', ...names, ...names.slice(3).map((name) => `packed : ${name}`)];
      console.log(`\n### ${type}\n\n| ${heads.join(' | ')} |\n|${heads.map(() => ' --- |').join('')}`);
      started = true;
    }
    console.log(`| ${shape[0]}, ${shape[1]} → ${shape[2]} | ${cells.join(' | ')} |`);
  }
}
for (const one of baselines) one.stop();

// The matrices of OPT-2.7b that a generated token needs, in each encoding: bfloat16, int8, int4, and nf4 and int8 of bitsandbytes.
//   node bench/token.mjs [--threads 2] [--layers 8] [--rounds 7] [--rows 1,5] [--only int8,int4] [--python PATH]
// They alternate, round by round, with reading alone (the sum of squares of a long array), which is the floor. Milliseconds are the median,
// for all 32 layers without the head. Random numbers: only times mean something. With --python, the path of a Python with onnx 1.23.2 and
// onnxruntime 1.32.0, onnxruntime's int4 takes its turns too.
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { performance } from 'node:perf_hooks';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values: options } = parseArgs({
  options: {
    threads: { type: 'string', default: '2' },
    layers: { type: 'string', default: '8' },
    rounds: { type: 'string', default: '7' },
    rows: { type: 'string', default: '1,5' },
    only: { type: 'string' },
    python: { type: 'string' },
  },
});
const only = options.only?.split(',');
const layers = Number(options.layers);
const addon = createRequire(import.meta.url)('../build/blip2_native.node');
addon.setThreads(Number(options.threads));

const shapes = [...Array(4).fill([2560, 2560]), [10240, 2560], [2560, 10240]];

const some = new Uint8Array(16 << 20);
for (let i = 0; i < some.length; i++) some[i] = (i * 2654435761) >>> 13;
/** Bytes that repeat; `mask` keeps floats small and finite. */
function bytes(count, mask) {
  const made = new Uint8Array(count);
  for (let at = 0; at < count; at += some.length)
    made.set(some.subarray(0, Math.min(some.length, count - at)), at);
  if (mask) for (let i = 1; i < count; i += 2) made[i] &= 0xbf;
  return { bytes: made };
}
const floats = (count, value = 0.01) => ({
  bytes: new Uint8Array(new Float32Array(count).fill(value).buffer),
});

/** The spans of each encoding, and the precision in which it is multiplied. */
const encodings = {
  bfloat16: ['BF16', 'bfloat16', (N, K) => [bytes(2 * N * K, true)]],
  int8: ['INT8', 'int8', (N, K) => [bytes(N * K), floats(N), floats(K, 1)]],
  int4: [
    'INT4',
    'int8',
    (N, K) => [bytes((N * K) / 2), { bytes: new Uint8Array((N * K) / 64).fill(9) }, floats(N), floats(K, 1)],
  ],
  'nf4, bitsandbytes': ['BNB4', 'bfloat16', (N, K) => [bytes((N * K) / 2), floats((N * K) / 64), floats(16)]],
  'int8, bitsandbytes': ['BNB8', 'bfloat16', (N, K) => [bytes(N * K), floats(N)]],
};
const chosen = Object.entries(encodings).filter(([name]) => only?.includes(name) ?? true);
const weights = chosen.map(([name, [kind, precision, spans]]) => {
  let size = 0;
  const list = Array.from({ length: layers }, () => shapes)
    .flat()
    .map(([N, K]) => {
      const parts = spans(N, K);
      size += parts.reduce((sum, part) => sum + part.bytes.length, 0);
      return { handle: addon.storeWeight(kind, N, K, parts, false), N, K };
    });
  return { name, precision, list, size };
});

const long = new Float32Array(1 << 28).fill(1);
const sum = new Float32Array(1);
function seconds(call) {
  const start = performance.now();
  call();
  return (performance.now() - start) / 1000;
}
/** The seconds of onnxruntime for rows of x, in its own process. */
function onnxruntime(python) {
  const script = fileURLToPath(new URL('onnxruntime_token.py', import.meta.url));
  const args = [script, '--threads', options.threads, '--layers', options.layers];
  const child = spawn(python, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const seconds = async (M) => {
    child.stdin.write(`${M}\n`);
    const { value, done } = await answers.next();
    if (done) throw new Error('onnxruntime has ended');
    return Number(value);
  };
  return { seconds, stop: () => child.stdin.end() };
}
const rival = options.python && onnxruntime(options.python);
if (rival) await rival.seconds(1); // it is ready

const median = (numbers) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1];

for (const M of options.rows.split(',').map(Number)) {
  const x = new Float32Array(M * 10240).map((_, i) => Math.sin(i));
  const y = new Float32Array(M * 10240);
  const times = new Map([
    ['reading alone', []],
    ['onnxruntime', []],
    ...weights.map(({ name }) => [name, []]),
  ]);
  for (let round = 0; round <= Number(options.rounds); round++) {
    const alone = seconds(() => addon.squaredSum([long], sum));
    if (round > 0) times.get('reading alone').push(alone);
    for (const { name, precision, list } of weights) {
      const taken = seconds(() => {
        for (const { handle, N, K } of list)
          addon.timesWeight(
            x.subarray(0, M * K),
            handle,
            true,
            null,
            'none',
            null,
            y.subarray(0, M * N),
            M,
            N,
            K,
            precision,
          );
      });
      if (round > 0) times.get(name).push(taken);
    }
    const taken = await rival?.seconds(M);
    if (rival && round > 0) times.get('onnxruntime').push(taken);
  }
  const rate = long.byteLength / median(times.get('reading alone')) / 1e9;
  console.log(`M = ${M}, ${addon.instructionSet()}, reading alone ${rate.toFixed(1)} GB/s`);
  for (const { name, size } of weights) {
    const time = median(times.get(name));
    const whole = (1000 * time * 32) / layers;
    console.log(
      `${name.padEnd(20)} ${whole.toFixed(1).padStart(7)} ms a token  ${(size / time / 1e9).toFixed(1).padStart(5)} GB/s  ` +
        `${(time / (size / 1e9 / rate)).toFixed(2)} x the floor`,
    );
  }
  if (!rival) continue;
  const whole = (1000 * 32 * median(times.get('onnxruntime'))) / layers;
  console.log(`${'onnxruntime int4'.padEnd(20)} ${whole.toFixed(1).padStart(7)} ms a token`);
}
rival?.stop();

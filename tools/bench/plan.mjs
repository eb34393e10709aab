/**
 * What `blip2 plan` predicts beside what then happens: time, peak memory and size of the feature cache, each preset with an empty
 * cache, with a full one, and without one.
 *
 *   node tools/bench/plan.mjs --presets lora,lora+qformer --states cold,cached --model models/blip2-emoji-mini --data data/emoji/people …
 *
 * Everything but --presets and --states is passed to `blip2 plan` and `blip2 fit`. A plan is made right before each run, because both
 * depend on what other programs do. With VERBOSE=1 the parts of the plan and the messages of the run with their times go to stderr.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';

const args = process.argv.slice(2);
const presets = listOption('--presets', 'lora');
const states = listOption('--states', 'cold,cached');
const folder = mkdtempSync(join(tmpdir(), 'blip2-plan-'));
const bin = new URL('../../packages/cli/dist/bin.js', import.meta.url).pathname;
const peakFile = join(folder, 'peak');
const verbose = process.env.VERBOSE !== undefined;

/** Writes the peak of the resident set when the process ends. */
const watch = `data:text/javascript,import{writeFileSync as w}from'node:fs';process.on('exit',()=>w(${JSON.stringify(peakFile)},String(process.resourceUsage().maxRSS*1024)))`;

function listOption(name, otherwise) {
  const at = args.indexOf(name);
  return (at < 0 ? otherwise : args.splice(at, 2)[1]).split(',');
}

async function blip2(name, ...more) {
  const begin = performance.now();
  const seconds = () => (performance.now() - begin) / 1000;
  const child = spawn(process.execPath, ['--import', watch, bin, name, ...args, ...more]);
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (text) => (stdout += text));
  child.stderr.on('data', (text) => {
    stderr += text;
    if (verbose) process.stderr.write(`${seconds().toFixed(1)} ${text}`);
  });
  const status = await new Promise((resolve) => child.on('close', resolve));
  if (status !== 0) throw new Error(`blip2 ${name}: ${stderr}`);
  return { stdout, seconds: seconds(), peak: Number(readFileSync(peakFile, 'utf8')) };
}

function bytesOf(dir) {
  const names = readdirSync(dir, { recursive: true }).map((file) => join(dir, file));
  return names.filter((file) => file.endsWith('.f32')).reduce((sum, file) => sum + statSync(file).size, 0);
}

const share = (planned, found) =>
  found === 0 ? '' : `${planned > found ? '+' : ''}${(100 * (planned / found - 1)).toFixed(1)} %`;
const mb = (bytes) => (bytes / 1e6).toFixed(0);

async function rowOf(preset, state) {
  const cache = join(folder, preset);
  const own = [
    '--set',
    `cache_dir=${cache}`,
    ...(state === 'no cache' ? ['--set', 'cache_features=false'] : []),
  ];
  const planned = await blip2('plan', '--preset', preset, ...own, '--json');
  const plan = JSON.parse(planned.stdout);
  const row = plan.presets.find((one) => one.preset === preset);
  if (verbose) console.error(JSON.stringify({ ...row, measured: plan.facts.measured }));
  const output = join(folder, `${preset}-${state}`);
  const run = await blip2('fit', '--preset', preset, '--output', output, ...own);
  rmSync(output, { recursive: true }); // a whole model of full size has 15 GB
  const time = row.time[state === 'cached' ? 'cached' : 'cold'].total;
  const [peak, bytes, found] = [row.memory.peak, row.cache.bytes, state === 'no cache' ? 0 : bytesOf(cache)];
  return [
    `${preset}, ${state}`,
    ...[time.toFixed(1), run.seconds.toFixed(1), share(time, run.seconds)],
    ...[mb(peak), mb(run.peak), share(peak, run.peak)],
    ...(found === 0 ? ['', '', ''] : [mb(bytes), mb(found), share(bytes, found)]),
    planned.seconds.toFixed(1),
  ];
}

const head = ['run', 'time planned, s', 'time, s', '', 'peak planned, MB', 'peak RSS, MB', ''];
const line = (cells) => console.log(`| ${cells.join(' | ')} |`);
line([...head, 'cache planned, MB', 'cache, MB', '', 'making the plan, s']);
line(['---', ...Array(10).fill('---:')]);
try {
  for (const preset of presets) for (const state of states) line(await rowOf(preset, state));
} finally {
  rmSync(folder, { recursive: true });
}

/**
 * What `blip2 plan` predicts beside what then happens: time, peak memory and size of the feature cache, each preset once
 * with an empty cache and once with a full one.
 *
 *   node tools/bench/plan.mjs --presets lora,lora+qformer --model models/blip2-emoji-mini --data data/emoji/people …
 *
 * Everything but --presets is passed to `blip2 plan` and `blip2 fit`.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';

const args = process.argv.slice(2);
const at = args.indexOf('--presets');
const presets = at < 0 ? ['lora'] : args.splice(at, 2)[1].split(',');
const folder = mkdtempSync(join(tmpdir(), 'blip2-plan-'));
const bin = new URL('../../packages/cli/dist/bin.js', import.meta.url).pathname;
const peakFile = join(folder, 'peak');

/** Writes the peak of the resident set when the process ends. */
const watch = `data:text/javascript,import{writeFileSync as w}from'node:fs';process.on('exit',()=>w(${JSON.stringify(peakFile)},String(process.resourceUsage().maxRSS*1024)))`;

function blip2(name, ...more) {
  const begin = performance.now();
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--import', watch, bin, name, ...args, ...more],
    { encoding: 'utf8', maxBuffer: 1 << 28 },
  );
  if (status !== 0) throw new Error(`blip2 ${name}: ${stderr}`);
  return {
    stdout,
    stderr,
    seconds: (performance.now() - begin) / 1000,
    peak: Number(readFileSync(peakFile, 'utf8')),
  };
}

function bytesOf(dir) {
  const names = readdirSync(dir, { recursive: true }).map((file) => join(dir, file));
  return names.filter((file) => file.endsWith('.f32')).reduce((sum, file) => sum + statSync(file).size, 0);
}

const share = (planned, found) =>
  `${planned > found ? '+' : ''}${(100 * (planned / found - 1)).toFixed(1)} %`;
const mb = (bytes) => (bytes / 1e6).toFixed(0);
console.log(
  '| run | time: plan, s | time, s | | peak: plan, MB | peak RSS, MB | | cache: plan, MB | cache, MB | |',
);
console.log('| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |');
for (const preset of presets) {
  const cache = join(folder, preset);
  for (const state of ['cold', 'cached']) {
    const plan = JSON.parse(blip2('plan', '--preset', preset, '--json').stdout);
    const row = plan.presets.find((one) => one.preset === preset);
    const run = blip2(
      'fit',
      '--preset',
      preset,
      '--output',
      join(folder, `${preset}-${state}`),
      '--set',
      `cache_dir=${cache}`,
    );
    const time = row.time[state].total;
    const [peak, bytes, found] = [row.memory.peak, row.cache.bytes, bytesOf(cache)];
    console.log(
      `| ${preset}, ${state} | ${time.toFixed(1)} | ${run.seconds.toFixed(1)} | ${share(time, run.seconds)} | ${mb(peak)} | ${mb(run.peak)} | ${share(peak, run.peak)} | ${mb(bytes)} | ${mb(found)} | ${share(bytes, found)} |`,
    );
    if (process.env.VERBOSE)
      console.log(JSON.stringify({ ...row, measured: plan.facts.measured }, null, 1), run.stderr);
  }
}
rmSync(folder, { recursive: true });

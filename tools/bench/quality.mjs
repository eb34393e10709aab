/**
 * What each precision costs in accuracy: the table of docs/decisions/0017.
 *
 *   npx nx run emoji-captions:render
 *   node tools/bench/quality.mjs [--work runs/quality] [--seeds 0,1,2] [--data demo,drawings] [--rows float32,int4-fitted]
 *
 * `base` is the base on the Unicode names of the demo's test pictures, the words that it was trained on. `trained` is a fit in that
 * precision. `after` is the fit in float32, merged and rounded afterwards. int4 and int4-fitted are checkpoints of `blip2 quantize --bits 4`,
 * without and with --data; the base of a fit is fitted to the pictures that it trains on. Finished measurements are lines of
 * WORK/results.jsonl, and are not repeated.
 */
import { execFile } from 'node:child_process';
import { appendFileSync, existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs, promisify } from 'node:util';

const MODEL = 'models/blip2-emoji-mini';
const PEOPLE = 'data/emoji/people';
/** Arguments of `fit`, of `evaluate` for the same test pictures, and of `quantize` for the same training pictures. */
const DATA = {
  demo: {
    fit: () => ['recipes/emoji-demo.yaml'],
    test: () => ['--data', PEOPLE, '--split', 'test'],
    fitted: `${PEOPLE}/train`,
  },
  drawings: {
    fit: () => [...drawings(), '--preset', 'lora'],
    test: (seed) => [...drawings(), '--split', 'test', '--seed', String(seed)],
    fitted: 'data/drawings',
  },
};
const drawings = () => ['--data', 'data/drawings', '--split-fractions', 'validation=0.1,test=0.3'];

/** The precision of matmuls, and how the checkpoint is rounded before. */
const ROWS = {
  float32: { precision: 'float32' },
  bfloat16: { precision: 'bfloat16' },
  int8: { precision: 'int8' },
  int4: { precision: 'int8', rounded: () => [] },
  'int4-fitted': { precision: 'int8', rounded: (data) => ['--data', data] },
};

const options = {
  work: 'runs/quality',
  seeds: '0,1,2',
  data: 'demo,drawings',
  rows: Object.keys(ROWS).join(),
};
const { values } = parseArgs({
  options: Object.fromEntries(
    Object.entries(options).map(([name, value]) => [name, { type: 'string', default: value }]),
  ),
});
const { work } = values;
const [seeds, sets, rows] = [values.seeds, values.data, values.rows].map((list) => list.split(','));
const FILE = join(work, 'results.jsonl');

mkdirSync(work, { recursive: true });
if (!existsSync('data/drawings/240.png'))
  await promisify(execFile)(process.execPath, [
    'recipes/drawings/draw.mjs',
    'data/drawings',
    '--count',
    '240',
  ]);
const results = new Map(
  existsSync(FILE)
    ? readFileSync(FILE, 'utf8')
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line))
        .map((result) => [result.name, result])
    : [],
);
for (const row of rows) await once(`${row} base`, () => baseOf(row));
for (const data of sets)
  for (const seed of seeds) {
    for (const row of rows) await once(`${row} trained ${data} ${seed}`, () => trained(row, data, seed));
    for (const row of rows) await once(`${row} after ${data} ${seed}`, () => after(row, data, seed));
  }
console.log(table().join('\n'));

async function once(name, measure) {
  if (results.has(name)) return;
  const result = { name, ...(await measure()) };
  results.set(name, result);
  appendFileSync(FILE, `${JSON.stringify(result)}\n`);
  console.error(name, JSON.stringify(result));
}

async function baseOf(row) {
  const model = await roundedModel(row, MODEL, 'base', `${PEOPLE}/train`);
  return evaluated(model, row, [...DATA.demo.test(), '--caption-column', 'label']);
}

async function trained(row, data, seed) {
  const model = await roundedModel(row, MODEL, data, DATA[data].fitted);
  const output = join(work, `${data}-${row}-${seed}`);
  rmSync(output, { recursive: true, force: true });
  const { table, figures } = await blip2('fit', [
    ...[...DATA[data].fit(), '--model', model, '--output', output, '--precision', ROWS[row].precision],
    ...['--set', `seed=${seed}`, '--backend', 'native'],
  ]);
  return scores(table, figures);
}

async function after(row, data, seed) {
  const merged = join(work, `${data}-merged-${seed}`);
  const run = join(work, `${data}-float32-${seed}`);
  if (!existsSync(merged)) {
    await once(`float32 trained ${data} ${seed}`, () => trained('float32', data, seed));
    await blip2('merge', ['--model', MODEL, '--adapter', join(run, 'adapter'), '--output', merged]);
  }
  const model = await roundedModel(row, merged, `${data}-merged-${seed}`, DATA[data].fitted);
  return evaluated(model, row, DATA[data].test(seed));
}

/** The checkpoint that a row uses. */
async function roundedModel(row, model, name, data) {
  const { rounded } = ROWS[row];
  if (!rounded) return model;
  const output = join(work, `${name}-${row}-checkpoint`);
  if (!existsSync(output))
    await blip2('quantize', ['--model', model, '--bits', '4', ...rounded(data), '--output', output]);
  return output;
}

async function evaluated(model, row, test) {
  const { precision } = ROWS[row];
  const { rows, metrics } = await blip2('evaluate', [
    ...['--model', model, '--precision', precision, '--backend', 'native', ...test],
  ]);
  return scores({ rows }, metrics);
}

function scores({ rows }, { captions }) {
  return { exact: rows[0].exact, cider_d: captions.cider_d };
}

async function blip2(name, args) {
  const bin = 'packages/cli/dist/bin.js';
  const { stdout } = await promisify(execFile)(process.execPath, [bin, name, '--json', ...args], {
    maxBuffer: 2 ** 28,
  });
  return JSON.parse(stdout);
}

/** Exact match in %: the seeds, then their mean. */
function table() {
  const percent = (x) => (100 * x).toFixed(1);
  const cell = (row, kind, data) => {
    const found = seeds
      .map((seed) => results.get(`${row} ${kind} ${data} ${seed}`)?.exact)
      .filter((x) => x !== undefined);
    const mean = found.reduce((sum, x) => sum + x, 0) / found.length;
    return found.length === 0 ? '' : `${percent(mean)} (${found.map(percent).join(', ')})`;
  };
  const kinds = ['trained', 'after'].flatMap((kind) => sets.map((data) => [kind, data]));
  const base = (row) => {
    const exact = results.get(`${row} base`)?.exact;
    return exact === undefined ? '' : percent(exact);
  };
  return [
    ['', 'base', ...kinds.map(([kind, data]) => `${data}, ${kind}`)],
    ['---', '---:', ...kinds.map(() => '---:')],
    ...rows.map((row) => [row, base(row), ...kinds.map(([kind, data]) => cell(row, kind, data))]),
  ].map((cells) => `| ${cells.join(' | ')} |`);
}

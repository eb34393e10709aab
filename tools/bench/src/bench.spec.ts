import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadConfig } from '@blip2/blip2/node';
import { beforeAll, describe, expect, it } from 'vitest';
import { runCaptions } from './caption';
import { compareLosses } from './check';
import { demoTable, ratesOf } from './demo';
import { kernelRows } from './kernel-table';
import { readOptions, UsageError } from './options';
import { parsePeak } from './peak';
import { besideBusyProcess, runJson } from './processes';
import { stepRows, summary, takeTurns } from './rows';
import type { SideReport } from './side';
import { flags } from './sides';
import { runSteps } from './step';
import type { StepReport } from './step';
import { digits, markdownTable, median, times } from './table';
import { readWork, syntheticBatch, writeWork } from './work';

const TINY = fileURLToPath(new URL('../../../packages/blip2/fixtures/tiny', import.meta.url));

const report = (seconds: number[], more: Partial<StepReport> = {}): StepReport => ({
  ...{ side: 'ours', threads: 1, precision: 'float32', preset: 'lora', features: 'none' },
  ...{
    load_seconds: 1,
    loaded_rss_bytes: 1e9,
    features_seconds: 0,
    peak_rss_bytes: 2e9,
    losses: [],
    images: [4, 4],
    trainable: 1,
  },
  seconds,
  ...more,
});

describe('options', () => {
  const known = { model: null, steps: '5', cold: false, list: '4,8', name: undefined };

  it('takes defaults, values and flags', () => {
    const o = readOptions(['--model', 'm', '--cold', '--list', '1, 2'], known);
    expect([o.text('model'), o.count('steps'), o.flag('cold'), o.maybe('name')]).toEqual([
      'm',
      5,
      true,
      undefined,
    ]);
    expect(o.counts('list')).toEqual([1, 2]);
  });

  it.each([
    [[], '--model is required'],
    [['--model', 'm', '--wrong'], 'wrong'],
    [['--model', 'm', 'stray'], 'stray'],
  ])('refuses %j', (args, message) => {
    expect(() => readOptions(args, known)).toThrow(UsageError);
    expect(() => readOptions(args, known)).toThrow(message);
  });

  it('reports the option with a wrong value', () => {
    const o = readOptions(['--model', 'm', '--steps', '2.5', '--list', '4,x'], known);
    expect(() => o.count('steps')).toThrow('--steps: expected a whole number, found "2.5"');
    expect(() => o.counts('list')).toThrow('--list: expected a positive number, found "x"');
    expect(() => o.oneOf('model', ['a', 'b'])).toThrow('--model: expected a, b, found "m"');
  });
});

describe('tables', () => {
  it('pads columns and aligns numbers right', () => {
    expect(
      markdownTable(
        ['', 's'],
        [
          ['ours', '1.20'],
          ['x·Wᵀ', '12'],
        ],
      ),
    ).toBe(['|      |    s |', '| ---- | ---: |', '| ours | 1.20 |', '| x·Wᵀ |   12 |'].join('\n'));
    expect(() => markdownTable(['a'], [['1', '2']])).toThrow('expected 1 cells, found 2');
  });

  it('rounds to three digits', () => {
    expect([1234.5, 12.345, 1.2345, 0.12345].map(digits)).toEqual(['1235', '12.3', '1.23', '0.123']);
    expect(times(2.505)).toBe('2.50x');
  });

  it('the median is the middle value, or the mean of the two middle ones', () => {
    expect([median([3, 1, 2]), median([4, 1, 2, 3])]).toEqual([2, 2.5]);
    expect(() => median([])).toThrow('at least one');
  });
});

describe('measurements', () => {
  it('are the median over all rounds, without the first call', () => {
    const m = summary('ours', [report([9, 1, 3]), report([7, 2, 5], { peak_rss_bytes: 3e9 })]);
    expect(m).toMatchObject({ seconds: 2.5, first_seconds: 8, peak_rss_bytes: 3e9 });
    expect(() => summary('ours', [report([9])])).toThrow('at least two calls');
  });

  it('alternate', async () => {
    const order: string[] = [];
    const competitor = (label: string, seconds: number) => ({
      label,
      measure: async (): Promise<SideReport> => {
        order.push(label);
        return report([9, seconds]);
      },
    });
    const measured = await takeTurns([competitor('PyTorch', 4), competitor('ours', 1)], 2);
    expect(order).toEqual(['PyTorch', 'ours', 'PyTorch', 'ours']);
    expect(stepRows(measured, 4).map((row) => row.slice(0, 4))).toEqual([
      ['PyTorch', '4.00', '1.00', '1.00x'],
      ['ours', '1.00', '0.250', '4.00x'],
    ]);
  });

  it('of the demo distribute the work that is done once over the epochs', () => {
    // 2 steps of 4 images: 8 images whose features took 0.8 s; a step takes 0.4 s
    const rates = ratesOf(
      summary('ours float32, features made once', [
        report([1, 0.4], { features: 'ready', features_seconds: 0.8 }),
      ]),
      2,
    );
    expect(rates).toMatchObject({ steps: 10, once: 100 });
    expect(rates.job).toBeCloseTo(1 / 0.15);
    const baselines = [
      ratesOf(
        summary('PyTorch float32, all parts at each step', [
          report([1, 0.8], { side: 'pytorch', features_seconds: 0.1 }),
        ]),
        2,
      ),
      ratesOf(
        summary('PyTorch float32, features made once', [
          report([1, 0.5], { side: 'pytorch', features: 'ready', features_seconds: 1.6 }),
        ]),
        2,
      ),
    ];
    const [, , ...rows] = demoTable([...baselines, rates]).split('\n');
    expect(rows[2].split('|').map((cell) => cell.trim())).toEqual([
      ...['', 'ours float32, features made once', '10.0', '100', '6.67', '1.33x', '1.25x', '2.0', ''],
    ]);
  });

  it('by kernel add up to the step', () => {
    const kernels = [
      { kernel: 'NnLinear', calls: 2, seconds: 0.06, flop: 12e9 },
      { kernel: 'Add', calls: 5, seconds: 0.0005, flop: 0 },
    ];
    expect(kernelRows(kernels, 0.1, 400)).toEqual([
      ['NnLinear', '2', '60.0', '60 %', '200', '50 %'],
      ['1 others', '5', '0.500', '1 %', '', ''],
      ['outside kernels', '', '39.5', '40 %', '', ''],
      ['whole step', '7', '100', '100 %', '120', '30 %'],
    ]);
  });

  it('reject sides that do different work', () => {
    expect(compareLosses('lora', [2, 1.99995], [2, 2])).toBeCloseTo(5e-5);
    expect(() => compareLosses('lora', [2, 1.999], [2, 2])).toThrow('do different work');
    expect(() => compareLosses('lora', [2], [2, 2])).toThrow(
      'expected as many losses as PyTorch, 2, found 1',
    );
    expect(() => compareLosses('lora', [NaN], [2])).toThrow('do different work');
  });
});

describe('processes', () => {
  it('return the JSON of their last line', async () => {
    const script = 'console.log("loading"); console.log(JSON.stringify({ a: process.env.A }))';
    expect(await runJson(process.execPath, ['-e', script], { A: '7' })).toEqual({ a: '7' });
  });

  it('that fail are reported with their output', async () => {
    const script = 'console.error("no memory"); process.exit(3)';
    await expect(runJson(process.execPath, ['-e', script])).rejects.toThrow(/ended with 3:\nno memory/);
    await expect(runJson(process.execPath, ['-e', 'console.log("x")'])).rejects.toThrow('a line of JSON');
  });

  it('run beside a busy one, which ends with them', async () => {
    expect(await besideBusyProcess(async () => 5)).toBe(5);
  });

  it('get their options as flags', () => {
    const run = { model: 'm', newTokens: 20, kernels: true, noDropout: false, adapter: undefined };
    expect(flags(run)).toEqual(['--model', 'm', '--new-tokens', '20', '--kernels']);
  });

  it('print the machine’s peak', () => {
    expect(parsePeak('float32 70.9\nbfloat16 162.3\n')).toEqual({ float32: 70.9, bfloat16: 162.3 });
    expect(() => parsePeak('')).toThrow('peak: expected');
  });
});

describe('our side', () => {
  let work: string;
  let prompts: string;

  beforeAll(async () => {
    const dir = await mkdtemp(join(tmpdir(), 'blip2-bench-'));
    const config = await loadConfig(TINY);
    [work, prompts] = [join(dir, 'work.safetensors'), join(dir, 'prompts.safetensors')];
    await writeWork(
      work,
      [1, 2].map((seed) => syntheticBatch(config, { batch: 2, text: 5, seed })),
    );
    await writeWork(prompts, [syntheticBatch(config, { batch: 2, text: 3, seed: 3, prompt: true })]);
  });

  it('reads the work file that it wrote', async () => {
    const config = await loadConfig(TINY);
    const batch = syntheticBatch(config, { batch: 2, text: 5, seed: 1 });
    expect((await readWork(work))[0]).toEqual(batch);
    expect([...batch.input_ids].filter((id) => id === config.image_token_index)).toHaveLength(
      2 * config.num_query_tokens,
    );
    expect([...batch.labels!].filter((label) => label >= 0)).toHaveLength(2 * 4);
  });

  it.each(['lora', 'qformer'] as const)(
    'trains %s, with the same losses from cached features',
    async (preset) => {
      const o = {
        model: TINY,
        work,
        threads: 1,
        backend: 'auto',
        precision: 'float32',
        preset,
        steps: 3,
        lr: 1e-2,
      } as const;
      const [cold, cached] = [
        await runSteps({ ...o, features: 'none', noDropout: true, kernels: true }),
        await runSteps({ ...o, features: 'ready', noDropout: true, kernels: true }),
      ];
      expect(cold.seconds).toHaveLength(3);
      expect(cold.images).toEqual([2, 2, 2]);
      expect(new Set(cold.losses).size).toBe(3);
      cold.losses.forEach((loss, i) => expect(cached.losses[i]).toBeCloseTo(loss, 5));
      const products = (run: typeof cold) => run.kernels!.find(({ kernel }) => kernel === 'NnLinear')!;
      expect(products(cached).flop).toBeGreaterThan(0);
      expect(products(cold).calls).toBeGreaterThan(products(cached).calls + 4); // those of the tower
      expect(cold.peak_rss_bytes).toBeGreaterThan(1e7);
    },
  );

  it('generates the requested number of tokens', async () => {
    const o = {
      model: TINY,
      work: prompts,
      threads: 1,
      backend: 'auto',
      precision: 'float32',
      beams: 2,
    } as const;
    const { ids, seconds, batch } = await runCaptions({ ...o, newTokens: 4, repeat: 2 });
    expect(ids.map((row) => row.length)).toEqual([4, 4]);
    expect([seconds.length, batch]).toEqual([2, 2]);
  });
});

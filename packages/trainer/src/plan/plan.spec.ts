import { blip2Weights, parseConfig as parseModel } from '@blip2/blip2';
import type { Precision } from '@blip2/nn';
import { describe, expect, it } from 'vitest';
import { parseConfig } from '../config';
import type { FitConfig } from '../config';
import { cachePlan, diskOf } from './disk';
import type { PlanFacts, StepCost } from './facts';
import { memoryOf } from './memory';
import { recommendedPresets } from './advice';
import { planOf, presetPlan } from './plan';
import { timeOf } from './time';

/** blip2-opt-2.7b; all other sizes are transformers' defaults. */
const FULL = parseModel({
  text_config: {
    vocab_size: 50304,
    hidden_size: 2560,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    ffn_dim: 10240,
  },
});
const GB = 1e9;

/** Seconds as in docs/benchmarks.md, and the bytes that a calibration measured. */
const STEP: StepCost = {
  ...{ batch: 4, below: 0, compute: 5, forward: 2.5, update: 0.1 },
  ...{ tape: 0.47 * GB, work: 0.05 * GB },
};

function facts(given: { rows?: number; memory?: number; disk?: number } = {}): PlanFacts {
  const { rows = 1000, memory = 16 * GB, disk = 500 * GB } = given;
  return {
    model: { config: FULL, dtype: 'BF16', bytes: 7.5 * GB },
    data: {
      ...{ rows, validation: 0, losses: 0, final: 0, prompts: 0, pictures: rows },
      ...{ tokens: { mean: 12, most: 12 }, pictures_per_row: 1, generated: 10 },
      ...{ taught: { pictures: rows, texts: rows, tokens: 12 * rows } },
    },
    machine: {
      memory,
      disk: { output: disk, cache: disk },
      backend: 'native',
      precision: 'bfloat16',
      stores: true,
    },
    measured: {
      process: 0.2 * GB,
      starting: 2,
      picture: 0.01,
      byte: 1e-9,
      stages: { image_features: { seconds: 1.3, bytes: 7e6 }, query_embeds: { seconds: 1.4, bytes: 7e6 } },
      steps: {
        lora: STEP,
        qformer: STEP,
        'qformer-projection': STEP,
        'lora+qformer': STEP,
        full: { ...STEP, tape: 4 * GB },
        'lora, upper 8 layers': { ...STEP, below: 1.8, compute: 1, forward: 0.4 },
      },
    },
  };
}

const config = (given: Record<string, unknown> = {}) =>
  parseConfig({ model: 'm', data: 'd', per_device_train_batch_size: 4, ...given });

/** Of the tensors that no backend stores: vectors, small matrices and the patch convolution. */
function float32Bytes(): number {
  const stored = ({ length, 0: n, 1: m }: readonly number[]) => length === 2 && n! * m! >= 2 ** 20;
  const rest = blip2Weights(FULL).filter(([, shape]) => !stored(shape));
  return 4 * rest.reduce((sum, [, shape]) => sum + shape.reduce((a, b) => a * b, 1), 0);
}

describe('a plan of blip2-opt-2.7b', () => {
  it('counts what each preset trains, and its bytes', () => {
    const lora = presetPlan(facts(), config());
    expect(lora.parameters).toBe(10_485_760);
    expect(lora.memory).toMatchObject({ trainables: 4 * 10_485_760, moments: 8 * 10_485_760 });
    expect(lora.disk).toMatchObject({ checkpoints: 4 * 12 * 10_485_760, result: 4 * 10_485_760 });
    expect(presetPlan(facts(), config({ preset: 'qformer' })).parameters).toBe(105_137_664);
  });

  it('counts the file of rounded weights, with the output layer, and says where it has no room', () => {
    const on = (precision: Precision, disk = 500 * GB) => {
      const given = facts({ disk });
      return presetPlan({ ...given, machine: { ...given.machine, precision } }, config());
    };
    expect(on('bfloat16').disk.rounded).toBe(0);
    const inLayers = ([name]: [string, unknown]) => /layers?\.\d/.test(name);
    const numbers = blip2Weights(FULL).filter((row) => row[1].length === 2 && inLayers(row));
    const eight = numbers.reduce((sum, [, [n, m]]) => sum + n * m, 50304 * 2560);
    const { disk, memory } = on('int8');
    expect(disk.rounded / eight).toBeCloseTo(1, 2);
    expect(disk.total).toBe(disk.model + disk.features + disk.rounded + disk.checkpoints + disk.result);
    expect(on('int4').disk.rounded).toBeLessThan(0.7 * disk.rounded);
    expect(memory.mapped / disk.rounded).toBeCloseTo(1 + (2 * 50304 * 2560) / disk.rounded, 2); // and exact embeddings
    // A large batch of an evaluation: the frozen parts are the most, as without rounding.
    const large = facts();
    large.measured.stages = {
      image_features: { seconds: 1, bytes: 2 * GB },
      query_embeds: { seconds: 1, bytes: 2 * GB },
    };
    const most = (precision: Precision) =>
      memoryOf({ ...large, machine: { ...large.machine, precision } }, config(), 0).activations;
    expect(most('int8')).toBe(most('bfloat16'));
    expect(most('int8')).toBeGreaterThan(2 * GB);
    expect(on('int8').notes).toEqual([]);
    expect(on('int8', 1 * GB).notes.join('\n')).toMatch(
      /^rounded weights and features take [45]\.\d GB, 1\.0 GB are free: unless the weights are there already/m,
    );
  });

  it('maps large frozen matrices and holds the rest in float32', () => {
    const { mapped, weights } = memoryOf(facts(), config(), 0);
    const large = blip2Weights(FULL).filter(([, { length, 0: n, 1: m }]) => length === 2 && n * m >= 2 ** 20);
    expect(mapped).toBe(2 * large.reduce((sum, [, [n, m]]) => sum + n * m, 0));
    expect(weights).toBeGreaterThan(4 * 40e6);
    const rounded = { ...facts(), model: { ...facts().model, dtype: 'F16' as const } };
    expect(memoryOf(rounded, config(), 0).mapped).toBe(0);
    const half = facts();
    const eight = memoryOf({ ...half, machine: { ...half.machine, precision: 'int8' } }, config(), 0);
    expect(eight.mapped).toBeGreaterThan(mapped / 2);
    expect(eight.mapped).toBeLessThan(0.55 * mapped); // embeddings stay in 16 bits
    const four = memoryOf({ ...half, machine: { ...half.machine, precision: 'int4' } }, config(), 0);
    const text = 32 * 12 * 2560 * 2560; // numbers of the text model's layers: 32 of 12 squares
    expect((eight.mapped - four.mapped) / (text * (1 - 0.515625))).toBeCloseTo(1, 2);
    const names = new Map(large.map(([name, [n, m]]) => [name, (n * m) / 2 + (n * m) / 16]));
    const packed = { ...half, model: { ...half.model, quantised: names } };
    expect(memoryOf(packed, config(), 0).mapped).toBeCloseTo((mapped / 4) * (9 / 8), -3);
    const trains = memoryOf(
      { ...half, machine: { ...half.machine, precision: 'int8' } },
      config({ preset: 'full' }),
      0,
    );
    expect(trains.mapped).toBe(memoryOf(half, config({ preset: 'full' }), 0).mapped);
    expect(memoryOf(rounded, config(), 0).weights).toBe(weights + mapped);
  });

  it('puts the peak of lora at batch 4 within 10 % of the measured 8.7 GB', () => {
    const { peak } = presetPlan(facts(), config()).memory;
    expect(peak / 8.7e9).toBeGreaterThan(0.9);
    expect(peak / 8.7e9).toBeLessThan(1.1);
  });

  it('holds frozen weights of a GPU in their type, at most 8.5 GB for lora at batch 4, less with cached features', () => {
    const known = facts();
    const machine = { ...known.machine, backend: 'webgpu', precision: 'float32' as const };
    const { mapped, weights } = memoryOf({ ...known, machine }, config(), 0);
    expect(mapped).toBe(0);
    const whole = memoryOf({ ...known, machine: { ...machine, backend: 'native' } }, config(), 0);
    const off = config({ cache_features: false });
    expect(memoryOf({ ...known, machine }, off, 0).weights).toBe(whole.mapped + float32Bytes());
    const float32 = { ...known, model: { ...known.model, dtype: 'F32' as const } };
    const rounding = { ...machine, precision: 'bfloat16' as const }; // while it multiplies
    expect(memoryOf({ ...float32, machine: rounding }, config(), 0).weights).toBe(
      memoryOf({ ...float32, machine }, config(), 0).weights,
    );
    // Those of the vision tower and the Q-Former are on the GPU only while features are computed.
    expect(weights / GB).toBeCloseTo(5.3, 1);
    const peak = (given: FitConfig) => presetPlan({ ...known, machine }, given).memory.peak / GB;
    expect(peak(off)).toBeGreaterThan(7.5);
    expect(peak(off)).toBeLessThan(8.5);
    expect(peak(config())).toBeGreaterThan(5.5);
    expect(peak(config())).toBeLessThan(6.6);
    const on = (memory: number, precision: Precision) =>
      presetPlan({ ...known, machine: { ...machine, precision, memory } }, config());
    const small = on(6 * GB, 'float32');
    expect(small.fits).toBe('no');
    expect(small.notes.join()).toContain('fits with precision=int8');
    expect(on(3.4 * GB, 'float32').notes.join()).toContain('fits with precision=int4');
  });

  it('has the largest tensor in float32 while a whole model is saved', () => {
    const saving = (preset: string) => memoryOf(facts(), config({ preset }), 0).saving;
    expect([saving('lora'), saving('qformer')]).toEqual([0, 4 * 50304 * 2560]);
  });

  it('fits lora in 16 GB, in 8 GB only slowly, and full in neither', () => {
    expect(presetPlan(facts(), config()).fits).toBe('yes');
    const small = presetPlan(facts({ memory: 8 * GB }), config());
    expect(small.fits).toBe('slow');
    expect(small.notes[0]).toMatch(
      /^needs [89]\.\d GB of 8\.0 GB: 7\.\d GB of that are weights in their file/,
    );
    expect(small.notes[1]).toMatch(/^fits with precision=int8/);
    const smaller = presetPlan(facts({ memory: 5 * GB }), config());
    expect(smaller.notes[1]).toMatch(/^fits with precision=int4/);
    const smallest = presetPlan(facts({ memory: 3 * GB }), config());
    expect(smallest.notes[1]).toMatch(/^even a batch of 1 needs/);
    const full = presetPlan(facts({ memory: 8 * GB }), config({ preset: 'full' }));
    expect(full.fits).toBe('no');
    expect(full.notes[0]).toMatch(
      /^needs \d\d\.\d GB, of which \d\d\.\d GB cannot be dropped; the machine has 8\.0 GB/,
    );
  });

  it('finds the largest batch that fits and learns the same', () => {
    const large = presetPlan(facts({ memory: 12 * GB }), config({ per_device_train_batch_size: 32 }));
    expect(large.fits).not.toBe('yes');
    const [, batch, steps] = /per_device_train_batch_size=(\d+), .* gradient_accumulation_steps=(\d+)/.exec(
      large.notes[1],
    )!;
    expect(Number(batch) * Number(steps)).toBe(32);
    const change = {
      per_device_train_batch_size: Number(batch),
      gradient_accumulation_steps: Number(steps),
      per_device_eval_batch_size: Number(batch),
    };
    expect(presetPlan(facts({ memory: 12 * GB }), config(change)).fits).toBe('yes');
  });
});

describe('the feature cache', () => {
  it('has the sizes of its files, and its place by the limits', () => {
    expect(cachePlan(facts(), config())).toMatchObject({
      stage: 'query_embeds',
      bytes: 1000 * (24 + 4 * 32 * 2560),
      kept: 'memory and disk',
    });
    expect(cachePlan(facts({ rows: 10_000 }), config()).kept).toBe('disk');
    expect(cachePlan(facts(), config({ preset: 'qformer' }))).toMatchObject({
      stage: 'image_features',
      bytes: 1000 * (24 + 4 * 257 * 1408),
    });
    expect(cachePlan(facts(), config({ preset: 'full' }))).toEqual({
      bytes: 0,
      kept: 'none',
      why: 'the vision tower trains',
    });
    const tight = facts({ rows: 10_000, disk: GB });
    expect(cachePlan(tight, config()).why).toBe('not enough disk');
    expect(diskOf(tight, config(), cachePlan(tight, config())).features).toBe(0);
  });

  it('has hidden states where only upper layers train, if memory or disk has room for them too', () => {
    const lora = { layers_to_transform: [24, 25, 26, 27, 28, 29, 30, 31] };
    const upper = presetPlan(facts(), config({ lora }));
    expect(upper.name).toBe('lora, upper 8 layers');
    expect(upper.trains).toMatch(/^LoRA in the upper 8 of 32 layers; the 24 below run once/);
    expect(upper.when).toMatch(
      /33 % .* 52 % .*; --set lora\.layers_to_transform=\[24,25,26,27,28,29,30,31\]$/,
    );
    const states = 1000 * (2 * 24 + 4 * (32 + 12) * 2560);
    expect(upper.cache.hidden).toEqual({ depth: 24, bytes: states, kept: 'memory and disk' });
    expect(upper.disk.features).toBe(upper.cache.bytes + states);
    expect(upper.memory.features).toBe(upper.cache.bytes + states);
    expect(upper.time!.cold.features).toBeCloseTo(1000 * (1.41 + 1.8 / 4));
    expect(upper.time!.cold.epoch).toBeCloseTo(250 * 1.1);
    const small = presetPlan(facts(), config({ lora, cache_memory_mb: 400, cache_limit_mb: 400 }));
    expect(small.cache).toMatchObject({ kept: 'memory and disk', hidden: { kept: 'none' } });
    expect(small.time!.cold.epoch).toBeCloseTo(250 * 2.9);
    expect(presetPlan(facts(), config()).cache.hidden).toBeUndefined();
    const { presets } = planOf(facts(), [config(), config({ lora })]);
    expect(presets.map(({ recommended }) => recommended !== undefined)).toEqual([true, false]);
  });

  it('names the cliff: 100,000 pictures lose it, and the setting that keeps it', () => {
    const { cache, notes, time } = presetPlan(facts({ rows: 100_000 }), config());
    expect(cache.kept).toBe('none');
    expect(notes).toEqual([
      'features take 32.8 GB, above cache_limit_mb (20480), so the frozen parts run at every step: 9.3 days instead of 6.1 days; ' +
        'avoid it with cache_limit_mb=31253',
    ]);
    expect(time!.cold.features).toBe(0);
    expect(presetPlan(facts({ rows: 100_000 }), config({ cache_limit_mb: 31253 })).notes).toEqual([]);
    const [note] = presetPlan(facts({ rows: 100_000, disk: GB }), config()).notes;
    expect(note).toContain('cache_limit_mb=31253 and a cache_dir with 32.8 GB free (1.0 GB are)');
  });
});

describe('the time', () => {
  it('has the rounding of weights once, in int8 and int4, but not of those that are rounded or train', () => {
    const numbers = (pattern: RegExp) =>
      blip2Weights(FULL)
        .filter(
          ([name, shape]) => shape.length === 2 && /layers?\.\d+\..*weight$/.test(name) && pattern.test(name),
        )
        .reduce((sum, [, [n, m]]) => sum + n * m, 0);
    const [text, others] = [numbers(/^language_model/), numbers(/^(vision_model|qformer)/)];
    const first = 8 * (1.4 + 2.5 / 4); // the exact model, on eight rows
    const times = (precision: 'bfloat16' | 'int8' | 'int4', model = FULL, preset = 'lora') => {
      const { machine, measured, ...rest } = facts();
      return presetPlan(
        {
          ...rest,
          model: { ...rest.model, config: model },
          machine: { ...machine, precision },
          measured: { ...measured, rounding: { 8: 1e-9, 4: 3e-9 } },
        },
        config({ preset }),
      ).time!;
    };
    expect(times('bfloat16').cold.rounding).toBe(0);
    const { cold, cached } = times('int8');
    expect(cold.rounding).toBeCloseTo(6e-9 * (text + others) + first); // 4 trials, the exact outputs, the file
    expect(cached.rounding).toBe(0);
    expect(cold.total - cached.total).toBeCloseTo(cold.features + cold.rounding);
    expect(times('int4').cold.rounding).toBeCloseTo(13 * 3e-9 * text + 6e-9 * others + first);
    const own = { ...FULL, raw: { ...FULL.raw, quantization_config: { quant_method: 'blip2', version: 1 } } };
    expect(times('int8', own).cold.rounding).toBeCloseTo(6e-9 * others + first);
    expect(times('int8', FULL, 'full').cold.rounding).toBe(0);
  });

  it('is that of the features once and of every step', () => {
    const time = timeOf(facts(), config(), cachePlan(facts(), config()))!;
    expect(time.features).toBeCloseTo(1000 * 1.41);
    expect(time.epoch).toBeCloseTo(250 * 5.1);
    expect(time.loading).toBeCloseTo(2 + 7.5 * (1 + 1.09 / 3.74) + 1.4, 1);
    expect(time.saving).toBeCloseTo((3 * 3 * 12 + 4) * 10_485_760 * 1e-9);
    expect(time.total).toBeCloseTo(time.loading + time.features + 3 * time.epoch + time.saving);
  });

  it('grows with accumulation, evaluations and texts', () => {
    const more: PlanFacts = {
      ...facts(),
      data: { ...facts().data, validation: 40, losses: 40, final: 32, prompts: 1 },
      measured: { ...facts().measured, generation: { rows: 16, prompt: 8, token: 0.5 } },
    };
    const at = (given: Record<string, unknown>) =>
      timeOf(more, config(given), cachePlan(more, config(given)))!;
    expect(at({}).evaluation).toBeCloseTo(3 * 40 * (2.5 / 4));
    expect(at({ sample_steps: 300 }).evaluation).toBeCloseTo(3 * 25 + 4 * (8 / 4 + 5));
    expect(at({}).final).toBeCloseTo(2 * (2 * 8 + 2 * 5) + (8 / 16 + 5 + 1.41));
    expect(at({ final_evaluation: 'none' }).final).toBe(0);
    const accumulated = at({ gradient_accumulation_steps: 5 });
    expect(accumulated.epoch).toBeCloseTo(50 * (5 * 5 + 0.1));
  });

  it('is unknown without a measurement', () => {
    const unmeasured = { ...facts(), measured: { ...facts().measured, steps: {} } };
    expect(presetPlan(unmeasured, config()).time).toBeUndefined();
  });
});

describe('the recommendation', () => {
  const presets = ['lora', 'qformer', 'qformer-projection', 'lora+qformer', 'full'];
  const recommended = (given: Parameters<typeof facts>[0]) =>
    planOf(
      facts(given),
      presets.map((preset) => config({ preset })),
    ).presets.flatMap(({ preset, recommended: why }) => (why ? [[preset, why]] : []));

  it('is one preset that fits, with its reason', () => {
    expect(recommended({ rows: 200 })).toEqual([['lora', expect.stringContaining('docs/which-layers.md')]]);
    expect(recommended({ rows: 5000 })).toEqual([
      ['lora', expect.stringMatching(/^5,000 rows are few for more/)],
    ]);
    expect(recommended({ rows: 20_000 })).toEqual([
      ['lora+qformer', expect.stringContaining('docs/decisions/0004-demo-preset.md')],
    ]);
    expect(recommended({ memory: 8 * GB })).toEqual([]);
  });

  it('falls back to a smaller one that fits', () => {
    expect(recommended({ rows: 12_000, memory: 10 * GB })).toEqual([['lora', 'lora+qformer does not fit']]);
  });

  it('is full for a narrow model and enough rows', () => {
    const first = (rows: number) => recommendedPresets({ rows, width: 192 }).order[0];
    expect([50, 999, 1000, 50_000].map(first)).toEqual(['lora', 'lora', 'full', 'full']);
    expect(recommendedPresets({ rows: 50 }).order[0]).toBe('lora');
  });
});

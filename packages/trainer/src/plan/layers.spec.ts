import { adapterBase, blip2Weights, parseConfig as parseModel } from '@blip2/blip2';
import { countPreset } from '@blip2/peft-lora';
import { dispose, flatten, isQuantised, weightBits } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { parseConfig } from '../config';
import { openModel } from '../model/open';
import { tinyConfig, tinyJob } from '../../spec/tiny';
import { makePlan } from '.';
import type { PlanFacts } from './facts';
import { layoutOf, trainedBy, unitsOf } from './layers';
import type { Units } from './layers';
import { roundingCost } from './rounding';
import { PARTS, smallModel } from './small-model';
import type { Part } from './small-model';

const FULL = parseModel({
  text_config: {
    vocab_size: 50304,
    hidden_size: 2560,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    ffn_dim: 10240,
  },
});
const config = (given: Record<string, unknown>) => parseConfig({ model: 'm', data: 'd', ...given });

/** Settings that choose what trains, for a model of any depth. */
const CUSTOM: Record<string, unknown>[] = [
  {},
  { preset: 'qformer' },
  { preset: 'full', gradient_checkpointing: true },
  { lora: { target_modules: 'all-linear' } },
  { lora: { target_modules: ['q_proj', 'lm_head'] } },
  { lora: { target_modules: '.*layers\\.[01]\\..*(q_proj|fc1)' } },
  { lora: { layers_to_transform: [1], layers_pattern: 'layers' } },
  { lora: { layers_to_transform: 1 } },
  {
    lora: { exclude_modules: ['layers.1.self_attn.k_proj'], use_rslora: true, init_lora_weights: 'gaussian' },
  },
  { lora: { rank_pattern: { k_proj: 2, 'layers.1.self_attn.q_proj': 4 }, alpha_pattern: { k_proj: 8 } } },
  { lora: { use_dora: true } },
  { lora: { lora_bias: true, bias: 'lora_only' } },
  { lora: { bias: 'all' } },
  { lora: { modules_to_save: ['lm_head'] } },
  { lora: { modules_to_save: ['embed_tokens', 'language_projection'] } },
  { also_train: ['encoder\\.layers\\.1\\.mlp', '^query_tokens$'] },
  { also_train: ['vision_model.*norm'], lr_layer_decay: 0.9 },
  { preset: 'qformer', also_train: ['decoder\\.layers\\.1\\.'] },
  {
    preset: 'lora+qformer',
    lora: { r: 4, target_modules: ['qformer.encoder.layer.0.attention.attention.query'] },
  },
];

/** The numbers that train in a small model, with each unit counted as often as the model has it. */
function totalOf(units: Units, counted: (chosen: Record<Part, number[]>) => number): number {
  const kinds = (part: Part) => new Map(units[part].map(({ kind, index }) => [kind, index]));
  const few = Object.fromEntries(
    PARTS.map((part) => [part, [...kinds(part).values()].sort((a, b) => a - b)]),
  ) as Record<Part, number[]>;
  const base = counted(few);
  const more = PARTS.flatMap((part) =>
    [...kinds(part)].map(([kind, index]) => {
      const alike = units[part].filter((unit) => unit.kind === kind).length;
      const deep = [...few[part], index].sort((a, b) => a - b);
      return alike === 1 ? 0 : (alike - 1) * (counted({ ...few, [part]: deep }) - base);
    }),
  );
  return more.reduce((sum, numbers) => sum + numbers, base);
}

describe('layers that train alike', () => {
  it.each(CUSTOM)('of the full-size model stand for all: %j', (given) => {
    const trained = trainedBy(FULL, config(given));
    const counted = (chosen: Record<Part, number[]>) => {
      const { config: small, preset } = layoutOf(FULL, chosen, trained);
      return countPreset(blip2Weights(small), preset!, {}, adapterBase(small)).trainable;
    };
    expect(totalOf(unitsOf(FULL, trained), counted)).toBe(trained.trainable);
  });

  it('are told apart by what trains in them and below them', () => {
    const kinds = (given: Record<string, unknown>, part: Part) => {
      const units = unitsOf(FULL, trainedBy(FULL, config(given)))[part];
      const first = new Map(units.map(({ kind }) => [kind, units.findIndex((unit) => unit.kind === kind)]));
      return [...first.values()];
    };
    expect(kinds({}, 'text')).toEqual([0, 1]);
    expect(kinds({ preset: 'qformer' }, 'text')).toEqual([0]);
    expect(kinds({ preset: 'qformer' }, 'qformer')).toEqual([0, 1]);
    expect(kinds({ lora: { layers_to_transform: [30, 31] } }, 'text')).toEqual([0, 30, 31]);
    expect(kinds({ lora: { layers_to_transform: [3] } }, 'text')).toEqual([0, 3, 4]);
    const ranks = Object.fromEntries(
      Array.from({ length: 32 }, (_, i) => [`layers.${i}.self_attn.q_proj`, 1 + i]),
    );
    expect(kinds({ lora: { rank_pattern: ranks } }, 'text')).toEqual([0, 1]);
  });
});

describe('a small model', () => {
  it('has the rounded weights of int8', async () => {
    await useBackend('native', { precision: 'int8' });
    const { config: small } = layoutOf(FULL, { vision: [0], qformer: [0], text: [0] });
    const { params } = smallModel(small, 'BF16', (name) => name.endsWith('fc1.weight'));
    const rounded = [...flatten(params)].filter(([, leaf]) => isQuantised(leaf)).map(([name]) => name);
    expect(rounded).toEqual([
      'vision_model.encoder.layers.0.mlp.fc1.weight',
      'language_model.model.decoder.layers.0.fc1.weight',
    ]);
    dispose(params);
  });
});

describe('the rounding of weights', () => {
  it.each([
    ['bfloat16', []],
    ['int8', ['8']],
    ['int4', ['4', '8']],
  ] as const)('in %s is timed for %j bits', async (precision, bits) => {
    await useBackend('native', { precision: weightBits(precision) ? precision : 'float32' });
    const costs = await roundingCost({ machine: { precision } as PlanFacts['machine'] });
    expect(Object.keys(costs)).toEqual(bits);
    for (const seconds of Object.values(costs)) expect(seconds).toBeGreaterThan(0);
  });
});

describe('custom settings', () => {
  let root: string;
  beforeAll(async () => void (await useBackend('cpu')));
  beforeEach(async () => void (root = await tinyJob()));
  const tiny = (given: Record<string, unknown>) =>
    tinyConfig(root, { per_device_train_batch_size: 2, final_evaluation: 'none', ...given });

  it.each(CUSTOM)('are planned, with as many parameters as fit trains: %j', async (given) => {
    const run = tiny(given);
    const [{ parameters, time }] = (await makePlan([run])).presets;
    const { trainables } = await openModel(run, {});
    expect(parameters).toBe([...trainables.values()].reduce((sum, { size }) => sum + size, 0));
    expect(time!.cold.total).toBeGreaterThan(0);
  });

  it.each([
    { lora: { target_modules: ['q_prj'] } },
    { lora: { target_modules: ['embed_tokens'] } },
    { lora: { layers_to_transform: [7] } },
    { lora: { r: 4000 } },
    { lora: { bias: 'all', modules_to_save: ['lm_head'] } },
    { lora: { modules_to_save: ['nothing'] } },
    { also_train: ['nowhere'] },
    { also_train: ['^language_projection'], lr_layer_decay: 0.5 },
  ])('that fit refuses are refused with the same error: %j', async (given) => {
    const run = tiny(given);
    const errorOf = (work: Promise<unknown>) =>
      work.then(
        () => 'none',
        ({ message }: Error) => message,
      );
    const refused = await errorOf(openModel(run, {}));
    expect(refused).not.toBe('none');
    expect(await errorOf(makePlan([run]))).toBe(refused);
  });
});

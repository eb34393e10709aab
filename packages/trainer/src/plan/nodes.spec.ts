import { readFileSync } from 'node:fs';
import { parseConfig as parseModel } from '@blip2/blip2';
import { describe, expect, it } from 'vitest';
import { parseConfig } from '../config';
import { cachePlan } from './disk';
import type { PlanFacts } from './facts';
import type { NodesPlan } from './nodes';
import { ASSUMED, clusterPlan, exchangeOf } from './nodes';
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
const ROWS = 64_000;

const FACTS: PlanFacts = {
  model: { config: FULL, dtype: 'BF16', bytes: 7.5 * GB },
  data: {
    ...{ rows: ROWS, validation: 0, losses: 0, final: 0, prompts: 0, pictures: ROWS, picture_bytes: 1e5 },
    ...{ tokens: { mean: 12, most: 12 }, pictures_per_row: 1, generated: 10 },
    taught: { pictures: ROWS, texts: ROWS, tokens: 12 * ROWS },
  },
  machine: {
    ...{ memory: 64 * GB, disk: { output: 1e13, cache: 1e13 } },
    ...{ backend: 'native', precision: 'bfloat16', stores: true },
  },
  measured: {
    ...{ process: 0.2 * GB, starting: 2, picture: 0.01, byte: 1e-9 },
    stages: { query_embeds: { seconds: 1.4, bytes: 7e6 } },
    steps: {
      lora: { batch: 4, below: 0, compute: 5, forward: 2.5, update: 0.1, tape: 0.5 * GB, work: 0.05 * GB },
    },
    generation: { rows: 16, prompt: 8, token: 0.4 },
  },
};

const config = parseConfig({
  ...{ model: 'base', data: 'rows', preset: 'lora', per_device_train_batch_size: 8, num_train_epochs: 1 },
  ...{ final_evaluation: 'none', cache_limit_mb: 1e9, per_device_eval_batch_size: 16 },
});
const planned = (nodes: number, failures = 0.2, captions?: number) =>
  clusterPlan(FACTS, config, 'lora', { nodes, failures, captions })!;

describe('a run on several nodes', () => {
  it('exchanges twice the gradients, but for its own share, at the speed of the link', () => {
    expect(exchangeOf(1e7, 1, 10)).toEqual({ bytes: 0, seconds: 0 });
    const { bytes, seconds } = exchangeOf(1e7, 4, 10);
    expect(bytes).toBe(6e7);
    const waits = Math.ceil(1e7 / 2 ** 20) * 6 * ASSUMED.latency;
    expect(seconds).toBeCloseTo(6e7 / (1.25e9 * ASSUMED.link) + 4e7 * ASSUMED.sum + waits, 12);
  });

  it('takes fewer steps of a larger batch, and less time at less efficiency', () => {
    const { runs } = planned(64);
    expect(runs.map(({ nodes }) => nodes)).toEqual([1, 2, 4, 8, 16, 32, 64].flatMap((n) => [n, n, n]));
    const fast = runs.filter(({ gbits }) => gbits === 25);
    expect(fast.map(({ batch }) => batch)).toEqual([8, 16, 32, 64, 128, 256, 512]);
    expect(fast.map(({ steps }) => steps)).toEqual([8000, 4000, 2000, 1000, 500, 250, 125]);
    for (let i = 1; i < fast.length; i++) {
      expect(fast[i].seconds).toBeLessThan(fast[i - 1].seconds);
      expect(fast[i].efficiency).toBeLessThan(fast[i - 1].efficiency);
      expect(fast[i].node_hours).toBeCloseTo((fast[i].nodes * fast[i].seconds) / 3600);
      expect(fast[i].efficiency).toBeCloseTo(fast[0].seconds / (fast[i].nodes * fast[i].seconds));
    }
    for (let i = 3; i < runs.length; i += 3) {
      expect(runs[i].seconds).toBeGreaterThan(runs[i + 1].seconds);
      expect(runs[i + 1].seconds).toBeGreaterThan(runs[i + 2].seconds);
    }
  });

  it('is evaluated once in each epoch, however many nodes it has', () => {
    const facts = { ...FACTS, data: { ...FACTS.data, validation: 400, losses: 400 } };
    const long = { ...config, num_train_epochs: 3 };
    const cache = cachePlan(facts, long);
    const evaluation = (nodes: number) =>
      timeOf(facts, long, cache, { nodes, exchange: 0, slowest: 1, weights: 0 })!.evaluation * nodes;
    expect(evaluation(1)).toBeCloseTo((3 * 400 * 2.5) / 4);
    expect(evaluation(8)).toBeCloseTo(evaluation(1));
  });

  it('is planned for another number of nodes than a power of two, and alone', () => {
    expect(planned(6).runs.map(({ nodes }) => nodes)).toEqual([1, 2, 4, 6].flatMap((n) => [n, n, n]));
    expect(planned(1).runs.map(({ nodes, efficiency }) => [nodes, efficiency])).toEqual([
      [1, 1],
      [1, 1],
      [1, 1],
    ]);
  });

  it('has failures in proportion to node-hours and rate', () => {
    const [often, seldom] = [1, 0.1].map((rate) => planned(8, rate).runs.at(-1)!);
    expect(often.failures.expected).toBeCloseTo(often.node_hours / 1000);
    expect(seldom.failures.expected).toBeCloseTo(often.failures.expected / 10);
    expect(often.failures.node_hours).toBeGreaterThan(0);
    expect(planned(8, 0).runs.at(-1)!.failures).toEqual({ expected: 0, node_hours: 0 });
  });
});

describe('captions on several nodes', () => {
  it('take the time of one picture for each, divided, and their storage', () => {
    const each = 0.01 + 1.4 + (8 + 0.4 * 10) / 16;
    const { captions } = planned(64, 0.2, 1e8);
    expect(captions!.seconds).toBeCloseTo((1e8 * each) / 64 + 7.5, 0);
    expect(captions!.node_hours).toBeCloseTo((64 * captions!.seconds) / 3600);
    expect(captions!.storage).toEqual({ pictures: 1e13, captions: 1e8 * ASSUMED.row, model: 7.5 * GB });
    expect(captions!.reading).toBeCloseTo((64 * 1e5) / each);
    expect(captions!.failures.expected).toBeCloseTo((captions!.node_hours * 0.2) / 1000);
    expect(captions!.failures.node_hours).toBeLessThan(captions!.failures.expected);
  });
});

/** 100,000 pictures, three epochs, batches of 8 on a node, and steps and features as docs/benchmarks.md has them for two cores. */
describe('docs/scale.md', () => {
  const step = { batch: 8, below: 0, forward: 5, update: 0, tape: 0.5 * GB, work: 0.05 * GB };
  const measured = {
    ...FACTS.measured,
    picture: 0,
    stages: { query_embeds: { seconds: 1.42, bytes: 7e6 }, image_features: { seconds: 1.29, bytes: 7e6 } },
    steps: { lora: { ...step, compute: 9.77 }, qformer: { ...step, compute: 11.1 } },
    generation: { rows: 8, prompt: 0, token: 8 * 0.1 }, // 2.42 s for a picture
  };
  const rows = 100_000;
  const data = {
    ...FACTS.data,
    rows,
    pictures: rows,
    taught: { pictures: rows, texts: rows, tokens: 12 * rows },
  };
  const long = { ...config, num_train_epochs: 3, per_device_eval_batch_size: 8 };
  const facts = { ...FACTS, data, measured };
  const text = readFileSync(new URL('../../../../docs/scale.md', import.meta.url), 'utf8');
  const cell = ({ seconds, efficiency }: NodesPlan) =>
    `${(seconds / 3600).toFixed(1)} h, ${Math.round(100 * efficiency)} %`;

  it.each([
    ['LoRA', { ...long, lora: { ...long.lora, r: 16 } }],
    ['Q-Former', { ...long, preset: 'qformer', lora: undefined }],
  ] as const)('has the times of this model: %s', (what, run) => {
    const { runs } = clusterPlan(facts, run as typeof long, what, { nodes: 64, failures: 0.2 })!;
    for (let i = 0; i < runs.length; i += 3) {
      const cells = runs.slice(i, i + 3).map(cell);
      const line = [`| ${what}`, runs[i].nodes, runs[i].batch, ...cells].join(' | ');
      expect(text.replace(/ +/g, ' ')).toContain(`${line} |`);
    }
  });

  it('has the node-hours of 100 million captions', () => {
    const { captions } = clusterPlan(facts, long, 'LoRA', { nodes: 64, failures: 0.2, captions: 1e8 })!;
    const { node_hours, seconds, storage, failures } = captions!;
    expect(text).toContain(`${Math.round(node_hours).toLocaleString('en')} node-hours`);
    expect(text).toContain(`${(seconds / 86400).toFixed(0)} days on 64 nodes`);
    expect(text).toContain(`${storage.captions / 1e9} GB of captions`);
    expect(text).toContain(`${failures.expected.toFixed(0)} failures`);
    expect(text).toContain(`${failures.node_hours.toFixed(1)} node-hours in all`);
  });
});

/**
 * A run, or captions of many pictures, on several nodes with this machine's processor: a model from what was measured on one, and the
 * assumptions below. docs/scale.md compares it with what was measured.
 */
import type { FitConfig } from '../config';
import { trainOptions } from '../model/parts';
import { cachePlan } from './disk';
import type { PlanFacts } from './facts';
import { trainedBy } from './layers';
import { captionSeconds, timeOf } from './time';

export const ASSUMED = {
  /** share of a link's speed that a sum reaches over TCP */
  link: 0.85,
  /** seconds for a message between two nodes */
  latency: 50e-6,
  /** seconds for a byte of gradients to be copied and added: 0.6 ns with two processes on one machine, more beyond its caches */
  sum: 1e-9,
  /** standard deviation of the time of a step on one node, as a share of it: the slowest node ends the step */
  spread: 0.03,
  /** bytes of a row of captions: its key, its text and their names */
  row: 90,
};

/** Floats of a process that MPI exchanges at once (packages/distributed/native/mpi.cc). */
const SEGMENT = 2 ** 18;

export interface Cluster {
  nodes: number;
  /** failures of a node in 1,000 hours */
  failures: number;
  /** pictures of a caption job to plan as well */
  captions?: number;
}

/** What failures take. */
export interface Failures {
  expected: number;
  node_hours: number;
}

export interface NodesPlan {
  nodes: number;
  /** of each node's link, in Gb/s */
  gbits: number;
  /** rows of a batch on all nodes */
  batch: number;
  steps: number;
  /** seconds of a step, and the part of it that exchanges gradients */
  step: number;
  exchange: number;
  /** bytes that a node sends, and as many that it receives, in a step */
  bytes: number;
  seconds: number;
  /** speed beside so many times that of one node */
  efficiency: number;
  node_hours: number;
  failures: Failures;
}

export interface CaptionsPlan {
  pictures: number;
  nodes: number;
  seconds: number;
  node_hours: number;
  storage: { pictures: number; captions: number; model: number };
  /** bytes per second that all nodes read */
  reading: number;
  failures: Failures;
}

export interface ClusterPlan {
  /** of the run that is planned */
  name: string;
  runs: NodesPlan[];
  captions?: CaptionsPlan;
  assumed: typeof ASSUMED;
}

/** 1, 2, 4 … up to `most`. */
const counts = (most: number) => {
  const powers = Array.from({ length: Math.ceil(Math.log2(most)) }, (_, i) => 2 ** i);
  return [...powers, most];
};

/** The run of `config` on 1, 2, 4 … nodes, at each speed of their links; undefined if no step could be timed. */
export function clusterPlan(
  facts: PlanFacts,
  config: FitConfig,
  name: string,
  { nodes, failures, captions }: Cluster,
): ClusterPlan | undefined {
  const alone = runOn(facts, config, { nodes: 1, gbits: 1, failures });
  if (!alone) return undefined;
  const runs = counts(nodes).flatMap((count) =>
    [1, 10, 25].map((gbits) => {
      const run = runOn(facts, config, { nodes: count, gbits, failures })!;
      return { ...run, efficiency: alone.seconds / (count * run.seconds) };
    }),
  );
  const planned =
    captions === undefined ? {} : { captions: captionsOn(facts, config, { nodes, failures, captions }) };
  return { name, runs, ...planned, assumed: ASSUMED };
}

/** The gradients of `numbers` trained numbers are sent and received by every node. */
export function exchangeOf(
  numbers: number,
  nodes: number,
  gbits: number,
): { bytes: number; seconds: number } {
  if (nodes === 1) return { bytes: 0, seconds: 0 };
  const bytes = ((2 * (nodes - 1)) / nodes) * 4 * numbers;
  const rounds = Math.ceil(numbers / (SEGMENT * nodes));
  const waits = rounds * 2 * (nodes - 1) * ASSUMED.latency;
  return { bytes, seconds: bytes / ((gbits / 8) * 1e9 * ASSUMED.link) + 4 * numbers * ASSUMED.sum + waits };
}

function runOn(
  facts: PlanFacts,
  config: FitConfig,
  { nodes, gbits, failures }: { nodes: number; gbits: number; failures: number },
): NodesPlan | undefined {
  const exchange = exchangeOf(trainedBy(facts.model.config, config).trainable, nodes, gbits);
  // the largest of so many normal numbers, and the weights of all nodes from one file server with such a link
  const slowest = 1 + ASSUMED.spread * Math.sqrt(2 * Math.log(nodes));
  const weights = ((nodes - 1) * facts.model.bytes) / ((gbits / 8) * 1e9 * ASSUMED.link);
  const time = timeOf(facts, config, cachePlan(facts, config), {
    nodes,
    exchange: exchange.seconds,
    slowest,
    weights,
  });
  if (!time) return undefined;
  const { totalSteps, perEpoch, save_steps } = trainOptions(config, facts.data.rows, nodes);
  const step = time.epoch / perEpoch;
  const hours = time.total / 3600;
  const lost = (save_steps * step) / 2 + time.loading;
  return {
    nodes,
    gbits,
    batch: nodes * config.per_device_train_batch_size * config.gradient_accumulation_steps,
    steps: totalSteps,
    step,
    exchange: exchange.seconds,
    bytes: exchange.bytes,
    seconds: time.total,
    efficiency: 1,
    node_hours: nodes * hours,
    failures: failuresOf(nodes, hours, failures, nodes * lost),
  };
}

/** @param lost seconds of all nodes that one failure takes */
function failuresOf(nodes: number, hours: number, rate: number, lost: number): Failures {
  const expected = (nodes * hours * rate) / 1000;
  return { expected, node_hours: (expected * lost) / 3600 };
}

/** Captions divided by shards: nodes do not wait for each other, and a failure takes a batch and a start of one node. */
function captionsOn(
  facts: PlanFacts,
  config: FitConfig,
  { nodes, failures, captions }: Required<Cluster>,
): CaptionsPlan {
  const { model, data, measured } = facts;
  const each = captionSeconds(facts, config);
  const loading = model.bytes * measured.byte;
  const seconds = (captions * each) / nodes + loading;
  const hours = seconds / 3600;
  const bytes = data.picture_bytes ?? 0;
  return {
    pictures: captions,
    nodes,
    seconds,
    node_hours: nodes * hours,
    storage: { pictures: captions * bytes, captions: captions * ASSUMED.row, model: model.bytes },
    reading: (nodes * bytes) / each,
    failures: failuresOf(nodes, hours, failures, loading + (config.per_device_eval_batch_size * each) / 2),
  };
}

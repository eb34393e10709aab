/** Combines several adapters into one: PEFT's add_weighted_adapter (peft 0.21 `tuners/lora/model.py`). */
import { show } from '@blip2/weights';
import { loraConfig } from './config';
import type { LoraConfig } from './config';
import { AdapterError, list } from './errors';
import type { Adapter, HostTensor } from './adapter';
import { truncated } from './low-rank';
import { rankOf } from './match';

/**
 * linear: weighted sums of the A and of the B matrices, all of one rank; a rough approximation.
 * cat: exact; the rank is the sum of the ranks.
 * svd: the best approximation of the exact sum with rank `svd_rank` (default: the largest rank).
 */
export type CombinationType = 'linear' | 'cat' | 'svd';

export interface WeightedOptions {
  /** One per adapter; may be negative. */
  weights: readonly number[];
  /** Default: svd, as in PEFT. */
  combination_type?: CombinationType;
  svd_rank?: number;
}

/** One adapter's contribution to a module: factor · B·A. */
interface Share {
  A: HostTensor;
  B: HostTensor;
  /** weight · scaling */
  factor: number;
}

/**
 * The adapter Σ weight · adapter, with scaling 1: r = lora_alpha. Modules of a lower rank are padded with rows of zeros.
 * Unlike in PEFT, `use_rslora` is off in the result, because it would scale it again by √r.
 * @throws AdapterError for adapters that cannot be combined: DoRA, trained biases, whole modules; ties, dare and
 *   magnitude_prune are not supported
 */
export function weightedAdapter(
  adapters: readonly Adapter[],
  { weights, combination_type = 'svd', svd_rank }: WeightedOptions,
): Adapter {
  check(adapters, weights, combination_type);
  const type = adapters.length === 1 ? 'linear' : combination_type;
  const ranks = adapters.map(({ config }) => Math.max(config.r, ...Object.values(config.rank_pattern)));
  const highest = Math.max(...ranks);
  if (type === 'linear' && new Set(ranks).size > 1)
    throw new AdapterError(
      `combination_type "linear": expected adapters of one rank, found ${ranks.join(', ')}; use cat or svd`,
    );
  const r =
    type === 'cat' ? ranks.reduce((a, b) => a + b, 0) : type === 'svd' ? (svd_rank ?? highest) : highest;
  const lora: Adapter['lora'] = new Map();
  for (const module of new Set(adapters.flatMap((adapter) => [...adapter.lora.keys()]))) {
    const shares = adapters.flatMap(({ config, lora }, i): Share[] => {
      const pair = lora.get(module);
      return pair ? [{ A: pair.A, B: pair.B, factor: weights[i]! * rankOf(config, module).scaling }] : [];
    });
    lora.set(
      module,
      type === 'linear' ? summed(shares, r) : type === 'cat' ? joined(shares, r) : best(shares, r),
    );
  }
  const where = adapters.map(({ where }, i) => `${weights[i]} · ${where}`).join(' + ');
  return { where, config: combinedConfig(adapters, r), lora, tensors: new Map() };
}

/** Σ ±√|factor|·A and Σ √|factor|·B; the sign is only in A. */
function summed(shares: readonly Share[], r: number): { A: HostTensor; B: HostTensor } {
  const A = zeros([r, shares[0]!.A.shape[1]!]);
  const B = zeros([shares[0]!.B.shape[0]!, r]);
  for (const share of shares) {
    const root = Math.sqrt(Math.abs(share.factor));
    addInto(A, share.A, 0, 0, share.factor < 0 ? -root : root);
    addInto(B, share.B, 0, 0, root);
  }
  return { A, B };
}

/** Concatenates the scaled A matrices by rows, and the B matrices by columns. */
function joined(shares: readonly Share[], r: number): { A: HostTensor; B: HostTensor } {
  const A = zeros([r, shares[0]!.A.shape[1]!]);
  const B = zeros([shares[0]!.B.shape[0]!, r]);
  let at = 0;
  for (const share of shares) {
    addInto(A, share.A, at, 0, share.factor);
    addInto(B, share.B, 0, at, 1);
    at += share.A.shape[0]!;
  }
  return { A, B };
}

function best(shares: readonly Share[], r: number): { A: HostTensor; B: HostTensor } {
  const { A, B } = joined(
    shares,
    shares.reduce((sum, share) => sum + share.A.shape[0]!, 0),
  );
  return truncated(A, B, r);
}

function zeros(shape: number[]): HostTensor {
  return { shape, data: new Float32Array(shape[0]! * shape[1]!) };
}

/** target[row + i][column + j] += factor · source[i][j] */
function addInto(target: HostTensor, source: HostTensor, row: number, column: number, factor: number): void {
  const [rows, columns] = source.shape as [number, number];
  for (let i = 0; i < rows; i++)
    for (let j = 0; j < columns; j++)
      target.data[(row + i) * target.shape[1]! + column + j]! += factor * source.data[i * columns + j]!;
}

function check(adapters: readonly Adapter[], weights: readonly number[], type: string): void {
  const problems: string[] = [];
  if (!['linear', 'cat', 'svd'].includes(type))
    problems.push(`combination_type: expected linear, cat or svd, found ${show(type)}`);
  if (adapters.length === 0) problems.push('expected at least one adapter, found none');
  if (weights.length !== adapters.length || !weights.every(Number.isFinite))
    problems.push(`weights: expected ${adapters.length} numbers, found ${show(weights)}`);
  for (const { where, config, tensors } of adapters) {
    const extra = [
      config.use_dora && 'DoRA',
      config.lora_bias && 'lora_bias',
      tensors.size > 0 && `whole tensors (${[...tensors.keys()][0]}, …)`,
    ];
    const found = extra.filter((text) => text !== false);
    if (found.length > 0) problems.push(`${where}: expected plain LoRA, found ${found.join(', ')}`);
  }
  const [first] = adapters;
  for (const { where, config } of adapters) {
    for (const field of ['exclude_modules', 'layers_to_transform', 'layers_pattern'] as const) {
      if (show(config[field]) !== show(first!.config[field]))
        problems.push(
          `${where}: ${field}: expected that of ${first!.where}, ${show(first!.config[field])}, found ${show(config[field])}`,
        );
    }
  }
  if (problems.length > 0)
    throw new AdapterError(`adapters cannot be combined:\n${list(problems)}`, problems);
}

function combinedConfig(adapters: readonly Adapter[], r: number): LoraConfig {
  const base = adapters[0]!.config;
  return loraConfig({
    ...base,
    r,
    lora_alpha: r,
    target_modules: combinedTargets(adapters),
    rank_pattern: {},
    alpha_pattern: {},
    use_rslora: false,
    init_lora_weights: true,
  });
}

/** The union of lists, or an alternation of regular expressions. */
function combinedTargets(adapters: readonly Adapter[]): string | string[] {
  const targets = adapters.map(({ config }) => config.target_modules);
  if (targets.every((target) => show(target) === show(targets[0]))) return targets[0]!;
  if (targets.every(Array.isArray)) return [...new Set(targets.flat())];
  const isPattern = (target: string | string[]) =>
    typeof target === 'string' && target.toLowerCase() !== 'all-linear';
  if (targets.every(isPattern)) return targets.map((target) => `(${target as string})`).join('|');
  throw new AdapterError(
    `adapters cannot be combined: expected target_modules of one kind (lists, regular expressions or all-linear), found ${targets.map(show).join(' and ')}`,
  );
}

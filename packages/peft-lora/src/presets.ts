/** Named trainable sets for BLIP-2, each with an optional LoRA and a list of name patterns. */
import { flatten, isTrainable, matchNames, replaceLeaves, trainableLeaves, variable } from '@blip2/nn';
import type { Variable } from '@blip2/nn';
import { show } from '@blip2/weights';
import type { WeightTable } from '@blip2/weights';
import { loraConfig } from './config';
import type { LoraConfig } from './config';
import { AdapterError, list } from './errors';
import { addLora } from './lora';
import { matchTargets } from './match';
import { withinTime } from './time-limit';
import { untiedTable } from './ties';
import type { AdapterBase } from './ties';
import { checkBias, trainedBiases, trainedModules } from './trained';

/** A trainable set. */
export interface Preset {
  /** LoRA, if any; adapted base weights stay frozen. Default of target_modules: the model's `lora_targets`. */
  lora?: Partial<LoraConfig>;
  /** Regular expressions that match anywhere in the names of tensors to train whole. Each must match something. */
  patterns: readonly string[];
}

export type PresetName = 'lora' | 'qformer' | 'qformer-projection' | 'lora+qformer' | 'full';

const LORA: Partial<LoraConfig> = { r: 16, lora_alpha: 32, lora_dropout: 0.05 };
const QFORMER_PROJECTION = ['qformer', '^query_tokens$', '^language_projection\\.'];

/**
 * The documented sets. Trainable parameters on blip2-opt-2.7b: lora 10,485,760 (blip2-flan-t5-xl: 9,437,184); qformer 105,137,664;
 * qformer-projection (the paper's set, also with queries and projection) 107,130,880.
 */
export const presets: Readonly<Record<PresetName, Preset>> = {
  lora: { lora: LORA, patterns: [] },
  qformer: { patterns: ['qformer'] },
  'qformer-projection': { patterns: QFORMER_PROJECTION },
  'lora+qformer': { lora: LORA, patterns: QFORMER_PROJECTION },
  full: { patterns: ['.'] },
};

/**
 * The set of that name; a Preset is returned unchanged.
 * @throws AdapterError for an unknown name, listing the known ones
 */
export function presetOf(preset: PresetName | Preset): Preset {
  if (typeof preset !== 'string') return preset;
  if (!Object.hasOwn(presets, preset)) {
    throw new AdapterError(
      `preset: expected one of ${Object.keys(presets).join(', ')}, found "${String(preset)}"`,
    );
  }
  return presets[preset];
}

/** For a model without ties and default targets. */
const NO_BASE: AdapterBase = { ties: [], lora_targets: [] };

/** The complete LoRA configuration of a preset with overrides, or undefined when the preset has no LoRA. */
export function presetLora(
  preset: PresetName | Preset,
  lora: Partial<LoraConfig> = {},
  { lora_targets }: Pick<AdapterBase, 'lora_targets'> = NO_BASE,
): LoraConfig | undefined {
  const own = presetOf(preset).lora;
  return own && loraConfig({ target_modules: [...lora_targets], ...own, ...defined(lora) });
}

/** A tree prepared for training. */
export interface Prepared<T> {
  params: T;
  /** The LoRA configuration for `saveAdapter`; undefined without LoRA. */
  adapter?: LoraConfig;
  /** Its Variables by name, in tree order. */
  trainables: Map<string, Variable>;
}

/**
 * A new tree in which exactly the preset's tensors are Variables: the selected leaves and, with LoRA, fresh adapters.
 * Frozen tensors are shared with `tree`.
 * @param lora overrides of the preset's LoRA; ignored for a preset without LoRA
 * @param seed of the adapters' initial values
 * @param base the model's ties and default targets
 * @throws AdapterError or Error when a target or pattern matches nothing, or when the tree already has Variables
 */
export function applyPreset<T extends object>(
  tree: T,
  preset: PresetName | Preset,
  lora: Partial<LoraConfig> = {},
  seed = 0,
  base = NO_BASE,
): Prepared<T> {
  const already = [...trainableLeaves(tree).keys()];
  if (already.length > 0) {
    throw new AdapterError(
      `applyPreset: expected a tree of frozen tensors, found ${already.length} Variables:\n${list(already, 5)}`,
    );
  }
  const selected = selectedNames(flatten(tree).keys(), preset);
  const adapter = presetLora(preset, lora, base);
  // Adapters first, so that no Variable is left over if a target matches nothing.
  const adapted = adapter ? addLora(tree, adapter, seed, base.ties).tree : tree;
  const params = replaceLeaves(adapted, (name, leaf) =>
    selected.has(name) && !isTrainable(leaf) ? variable(leaf, name) : leaf,
  );
  return { params, adapter, trainables: trainableLeaves(params) };
}

/** The tensors that a preset's patterns train. */
function selectedNames(names: Iterable<string>, preset: PresetName | Preset): Set<string> {
  const { patterns } = presetOf(preset);
  return new Set(withinTime(() => matchNames(names, patterns), `patterns ${show(patterns)}`));
}

/** The Variables of a tree by name, in tree order. */
export function trainable(tree: object): Map<string, Variable> {
  return trainableLeaves(tree);
}

/** Numbers of parameters that a preset trains. */
export interface PresetCount {
  /** Parameters that train, adapters included. */
  trainable: number;
  /** All parameters, adapters included. */
  all: number;
  /** Parameters of the adapters. */
  lora: number;
  /** Modules that receive an adapter. */
  modules: string[];
  /** The ranks of their adapters. */
  ranks: number[];
  /** Tensors of the base that train. */
  names: string[];
}

/**
 * Counts a preset on a weight table; no weights are needed.
 * @throws as applyPreset
 */
export function countPreset(
  table: WeightTable,
  preset: PresetName | Preset,
  lora: Partial<LoraConfig> = {},
  base = NO_BASE,
): PresetCount {
  const config = presetLora(preset, lora, base);
  if (config) checkBias(config);
  const selected = selectedNames(
    table.map(([name]) => name),
    preset,
  );
  const shapes = config ? untiedTable(table, config, base.ties) : table;
  const targets = config ? matchTargets(config, shapes) : [];
  const modules = targets.map(({ module }) => module);
  const all = shapes.map(([name]) => name);
  if (config) {
    for (const name of trainedModules(config, all)) selected.add(name);
    for (const name of trainedBiases(config, all, modules)) selected.add(name);
  }
  const names = all.filter((name) => selected.has(name));
  const sizes = new Map(
    shapes.map(([name, shape]) => [name, shape.reduce((product, size) => product * size, 1)]),
  );
  const sum = (values: Iterable<number>) => [...values].reduce((total, value) => total + value, 0);
  const perOutput = Number(config?.use_dora ?? false) + Number(config?.lora_bias ?? false);
  const adapters = sum(targets.map(({ r, in: width, out }) => r * (width + out) + perOutput * out));
  // An untied alias shares its tensor if neither of them trains.
  const added = new Set(shapes.slice(table.length).map(([name]) => name));
  const shared = base.ties.filter(
    ({ tensor, alias }) => added.has(alias) && !selected.has(alias) && !selected.has(tensor),
  );
  return {
    trainable: sum(names.map((name) => sizes.get(name)!)) + adapters,
    all: sum(sizes.values()) - sum(shared.map(({ alias }) => sizes.get(alias)!)) + adapters,
    lora: adapters,
    modules,
    ranks: targets.map(({ r }) => r),
    names,
  };
}

/** The line of PEFT's `print_trainable_parameters`. */
export function trainableLine(trainable: number, all: number): string {
  const grouped = (count: number) => String(count).replace(/\B(?=(\d{3})+$)/g, ',');
  return `trainable params: ${grouped(trainable)} || all params: ${grouped(all)} || trainable%: ${fixed4((100 * trainable) / all)}`;
}

/** Python's `.4f`. It differs from toFixed only on exact ties: toFixed rounds up, Python to the even digit. */
function fixed4(value: number): string {
  const rounded = value.toFixed(4);
  const [, kept, rest] = /^(\d+\.\d{4})(\d*)$/.exec(value.toFixed(60)) ?? [];
  return kept && /^50*$/.test(rest!) && Number(kept.at(-1)) % 2 === 0 ? kept : rounded;
}

function defined<T extends object>(options: T): T {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as T;
}

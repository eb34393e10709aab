/** Finds the modules to adapt from names and shapes, by PEFT's rules (peft 0.21 `tuners_utils.check_target_module_exists`). */
import { nearest } from '@blip2/nn';
import { show } from '@blip2/weights';
import type { LoraConfig } from './config';
import { NO_TARGETS } from './config';
import { AdapterError, list } from './errors';
import { withinTime } from './time-limit';

/** Names and shapes of all tensors: a flattened tree or a weight table. */
export type Shapes = Iterable<readonly [name: string, shape: readonly number[]]>;

/** A Linear that receives LoRA. A is [r, in], B is [out, r]. */
export interface LoraTarget {
  module: string;
  in: number;
  out: number;
  r: number;
  scaling: number;
}

interface Modules {
  /** Linear modules and their [out, in]. */
  linear: Map<string, readonly [out: number, in_: number]>;
  /** Every module: also containers, norms, embeddings and convolutions. */
  all: Set<string>;
}

/**
 * The modules that a configuration adapts, in the model's order.
 * @param strict every target must match; false for PEFT's files, which may contain targets that match nothing (its default
 *   for BLIP-2 lists the projections of several text models)
 * @throws AdapterError when a target matches nothing (with similar names), or a module that is not a Linear
 */
export function matchTargets(config: LoraConfig, shapes: Shapes, strict = true): LoraTarget[] {
  if (config.target_modules === NO_TARGETS) return [];
  const what = `target_modules ${show(config.target_modules)}`;
  return withinTime(() => findTargets(config, findModules(shapes), strict), what);
}

function findTargets(config: LoraConfig, modules: Modules, strict: boolean): LoraTarget[] {
  const isTarget = targetTest(config, modules);
  const matched = [...modules.all].filter(isTarget);
  const wrong = matched.filter((module) => !modules.linear.has(module));
  if (wrong.length > 0) {
    throw new AdapterError(
      `target_modules ${show(config.target_modules)}: expected Linear modules (a 2-D weight, not an embedding), found also:\n${list(wrong)}`,
    );
  }
  const idle = [...idleTargets(config, modules, matched), ...idleLayers(config, modules, matched)];
  if (matched.length === 0 || (strict && idle.length > 0)) {
    const problems =
      idle.length > 0 ? idle : [`${show(config.target_modules)}: nothing is left after exclude_modules`];
    throw new AdapterError(
      `target_modules match nothing among ${modules.linear.size} Linear modules:\n${list(problems)}`,
      problems,
    );
  }
  const ranks = rankReader(config);
  const targets = matched.map((module): LoraTarget => {
    const [out, width] = modules.linear.get(module)!;
    return { module, in: width, out, ...ranks(module) };
  });
  if (strict) checkRanks(targets);
  return targets;
}

/** Ranks that any matrix may have: in a tiny model they cost nothing. */
const SMALL_RANK = 64;

/** @throws AdapterError for a rank above the smaller side of its matrix, which adds parameters and nothing else */
function checkRanks(targets: readonly LoraTarget[]): void {
  const problems = targets
    .filter(({ r, in: width, out }) => r > Math.max(SMALL_RANK, Math.min(width, out)))
    .map(({ module, r, in: width, out }) => `${module} [${out}, ${width}]: r ${r}`);
  if (problems.length === 0) return;
  throw new AdapterError(
    `r: expected at most the smaller side of each matrix, found larger ranks:\n${list(problems)}`,
    problems,
  );
}

/** Rank and scaling of one module's adapter, from the patterns, else from `r` and `lora_alpha`. */
export function rankOf(config: LoraConfig, module: string): { r: number; scaling: number } {
  return withinTime(() => rankReader(config)(module), 'rank_pattern and alpha_pattern');
}

function rankReader(config: LoraConfig): (module: string) => { r: number; scaling: number } {
  const [ranks, alphas] = [patternReader(config.rank_pattern), patternReader(config.alpha_pattern)];
  return (module) => {
    const r = ranks(module) ?? config.r;
    const alpha = alphas(module) ?? config.lora_alpha;
    return { r, scaling: alpha / (config.use_rslora ? Math.sqrt(r) : r) };
  };
}

/** Whether `module` is in, or is, one of `modules_to_save`, which are stored whole and get no LoRA. */
export function isSavedWhole(config: LoraConfig, module: string): boolean {
  return (config.modules_to_save ?? []).some((saved) =>
    new RegExp(`^(.*\\.)?${escape(saved)}($|\\..*)`, 's').test(module),
  );
}

/** Names of embeddings, whose weights look like those of linear layers; the last two are T5's. */
const EMBEDDING = /embed|^shared$|^relative_attention_bias$/;

function findModules(shapes: Shapes): Modules {
  const linear: Modules['linear'] = new Map();
  const all: Modules['all'] = new Set();
  for (const [name, shape] of shapes) {
    if (/(^|\.)lora\.lora_/.test(name)) continue;
    const segments = name.split('.');
    const leaf = segments.pop();
    for (let i = 1; i <= segments.length; i++) all.add(segments.slice(0, i).join('.'));
    const isLinear = leaf === 'weight' && shape.length === 2 && !EMBEDDING.test(segments.at(-1) ?? '');
    if (isLinear) linear.set(segments.join('.'), [shape[0]!, shape[1]!]);
  }
  return { linear, all };
}

type Test = (module: string) => boolean;

function targetTest(config: LoraConfig, { linear }: Modules): Test {
  const { exclude_modules: exclude, target_modules: targets } = config;
  const isExcluded = exclude !== null && exclude.length > 0 ? nameTest(exclude) : () => false;
  const isAll = typeof targets === 'string' && targets.toLowerCase() === 'all-linear';
  const isMatch = isAll
    ? (module: string) => linear.has(module) && !/(^|\.)lm_head$/.test(module)
    : nameTest(targets);
  const isLayer = typeof targets === 'string' ? () => true : layerTest(config);
  return (module) =>
    !isExcluded(module) && !isSavedWhole(config, module) && isMatch(module) && isLayer(module);
}

/** Whether a module has one of these names, whole or as its last segments, or matches a regular expression. */
export function isNamed(names: string | readonly string[], module: string): boolean {
  return withinTime(() => nameTest(names)(module), `target_modules ${show(names)}`);
}

function nameTest(names: string | readonly string[]): Test {
  if (typeof names === 'string') {
    const pattern = pythonRegExp(names, (source) => `^(?:${source})$`);
    return (module) => pattern.test(module);
  }
  const known = new Set(names);
  return (module) => ends(module).some((end) => known.has(end));
}

/** `a.b.c` → `a.b.c`, `b.c`, `c`. */
function ends(module: string): string[] {
  const segments = module.split('.');
  return segments.map((_, i) => segments.slice(i).join('.'));
}

/** Applies `layers_to_transform`. */
function layerTest(config: LoraConfig): Test {
  const wanted = new Set([config.layers_to_transform ?? []].flat());
  if (wanted.size === 0) return () => true;
  const layerOf = layerReader(config);
  return (module) => {
    const layer = layerOf(module);
    return layer !== undefined && wanted.has(layer);
  };
}

/** The layer's index in a name: its first numbered segment (after `layers_pattern`, if set). */
function layerReader({ layers_pattern: pattern }: LoraConfig): (module: string) => number | undefined {
  const patterns = pattern === null || pattern.length === 0 ? [] : [pattern].flat();
  const sources = patterns.length > 0 ? patterns.map((p) => `(?:^|.*?\\.)${p}`) : ['.*?\\.[^.]*'];
  const compiled = sources.map((source) => pythonRegExp(source, (s) => `^${s}\\.(\\d+)\\.`));
  return (module) => {
    for (const one of compiled) {
      const index = one.exec(module)?.at(-1);
      if (index !== undefined) return Number(index);
    }
    return undefined;
  };
}

/** Layers of `layers_to_transform` that have no target. */
function idleLayers(config: LoraConfig, modules: Modules, matched: readonly string[]): string[] {
  const wanted = [config.layers_to_transform ?? []].flat();
  if (wanted.length === 0) return [];
  const layerOf = layerReader(config);
  const layersOf = (names: Iterable<string>) => new Set([...names].map(layerOf));
  const [used, there] = [layersOf(matched), layersOf(withoutLayers(config, modules))];
  const most = [...there].reduce<number>((highest, layer) => Math.max(highest, layer ?? -1), -1);
  return wanted
    .filter((layer) => !used.has(layer))
    .map((layer) => `layers_to_transform ${layer}: the targets are in layers 0 to ${most}`);
}

/** The targets in all layers. */
const withoutLayers = (config: LoraConfig, modules: Modules) =>
  [...modules.all].filter(
    targetTest({ ...config, layers_to_transform: null, layers_pattern: null }, modules),
  );

/** The value in `rank_pattern` or `alpha_pattern` whose key is the first to match the last segments of the name. */
function patternReader(patterns: Record<string, number>): (module: string) => number | undefined {
  const compiled = Object.entries(patterns).map(
    ([key, value]) => [pythonRegExp(key, (source) => `^(.*\\.)?(${source})$`), value] as const,
  );
  return (module) => compiled.find(([pattern]) => pattern.test(module))?.[1];
}

/** Targets that match no module, each with similar names. */
function idleTargets(config: LoraConfig, { linear, all }: Modules, matched: readonly string[]): string[] {
  const near = (target: string) => {
    const ends = [...new Set([...linear.keys()].map((module) => module.split('.').at(-1)!))];
    const known = /[.\\*]/.test(target) ? [...linear.keys()] : ends;
    return known.length > 0 ? `; similar names: ${nearest(target, known).join(', ')}` : '';
  };
  if (typeof config.target_modules === 'string') {
    return matched.length > 0 ? [] : [`${show(config.target_modules)}${near(config.target_modules)}`];
  }
  if (config.target_modules.length === 0) return ['the list is empty'];
  const used = new Set(matched.flatMap(ends));
  const known = new Set([...all].flatMap(ends));
  return config.target_modules
    .filter((target) => !used.has(target))
    .map((target, i) => {
      if (known.has(target)) return `${show(target)}: all its modules are excluded`;
      return `${show(target)}${i < SHOWN ? near(target) : ''}`;
    });
}

/** Similar names are looked for, for so many targets only. */
const SHOWN = 15;

/** Converts a regular expression from Python's syntax: a leading (?i), named groups, \A and \Z. */
function pythonRegExp(source: string, frame: (source: string) => string): RegExp {
  const ignoreCase = source.startsWith('(?i)');
  const body = (ignoreCase ? source.slice(4) : source)
    .replaceAll('(?P<', '(?<')
    .replace(/\(\?P=(\w+)\)/g, '\\k<$1>')
    .replaceAll('\\A', '^')
    .replaceAll('\\Z', '$');
  try {
    return new RegExp(frame(body), ignoreCase ? 'i' : '');
  } catch (error) {
    throw new AdapterError(
      `${show(source)}: expected a regular expression: ${(error as Error).message}`,
      undefined,
      { cause: error },
    );
  }
}

function escape(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

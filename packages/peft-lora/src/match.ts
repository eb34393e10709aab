/** Finds the modules to adapt from names and shapes, by PEFT's rules (peft 0.21 `tuners_utils.check_target_module_exists`). */
import { nearest } from '@blip2/nn';
import { show } from '@blip2/weights';
import type { LoraConfig } from './config';
import { NO_TARGETS } from './config';
import { AdapterError, list } from './errors';

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
  const modules = findModules(shapes);
  const matched = [...modules.all].filter((module) => isTarget(config, module, modules));
  const wrong = matched.filter((module) => !modules.linear.has(module));
  if (wrong.length > 0) {
    throw new AdapterError(
      `target_modules ${show(config.target_modules)}: expected Linear modules (a 2-D weight, not an embedding), found also:\n${list(wrong)}`,
    );
  }
  const idle = idleTargets(config, modules, matched);
  if (matched.length === 0 || (strict && idle.length > 0)) {
    const problems =
      idle.length > 0 ? idle : [`${show(config.target_modules)}: nothing is left after exclude_modules`];
    throw new AdapterError(
      `target_modules match nothing among ${modules.linear.size} Linear modules:\n${list(problems)}`,
      problems,
    );
  }
  return matched.map((module) => {
    const [out, width] = modules.linear.get(module)!;
    return { module, in: width, out, ...rankOf(config, module) };
  });
}

/** Rank and scaling of one module's adapter, from the patterns, else from `r` and `lora_alpha`. */
export function rankOf(config: LoraConfig, module: string): { r: number; scaling: number } {
  const r = patternValue(config.rank_pattern, module) ?? config.r;
  const alpha = patternValue(config.alpha_pattern, module) ?? config.lora_alpha;
  return { r, scaling: alpha / (config.use_rslora ? Math.sqrt(r) : r) };
}

/** Whether `module` is in, or is, one of `modules_to_save`, which are stored whole and get no LoRA. */
export function isSavedWhole(config: LoraConfig, module: string): boolean {
  return (config.modules_to_save ?? []).some((saved) =>
    new RegExp(`^(.*\\.)?${escape(saved)}($|\\..*)`, 's').test(module),
  );
}

function findModules(shapes: Shapes): Modules {
  const linear: Modules['linear'] = new Map();
  const all: Modules['all'] = new Set();
  for (const [name, shape] of shapes) {
    if (/(^|\.)lora\.lora_/.test(name)) continue;
    const segments = name.split('.');
    const leaf = segments.pop();
    for (let i = 1; i <= segments.length; i++) all.add(segments.slice(0, i).join('.'));
    const isLinear = leaf === 'weight' && shape.length === 2 && !/embed/.test(segments.at(-1) ?? '');
    if (isLinear) linear.set(segments.join('.'), [shape[0]!, shape[1]!]);
  }
  return { linear, all };
}

function isTarget(config: LoraConfig, module: string, { linear }: Modules): boolean {
  const { exclude_modules: exclude, target_modules: targets } = config;
  if (exclude !== null && exclude.length > 0 && isNamed(exclude, module)) return false;
  if (isSavedWhole(config, module)) return false;
  if (typeof targets !== 'string') return isNamed(targets, module) && isInLayers(config, module);
  if (targets.toLowerCase() === 'all-linear') return linear.has(module) && !/(^|\.)lm_head$/.test(module);
  return isNamed(targets, module);
}

export function isNamed(names: string | readonly string[], module: string): boolean {
  if (typeof names === 'string') return pythonRegExp(names, (source) => `^(?:${source})$`).test(module);
  return names.some((name) => module === name || module.endsWith(`.${name}`));
}

/** Applies `layers_to_transform`: the first numbered segment (after `layers_pattern`, if set) is the layer's index. */
function isInLayers(
  { layers_to_transform: layers, layers_pattern: pattern }: LoraConfig,
  module: string,
): boolean {
  if (layers === null || (Array.isArray(layers) && layers.length === 0)) return true;
  const patterns = pattern === null || pattern.length === 0 ? [] : [pattern].flat();
  const sources = patterns.length > 0 ? patterns.map((p) => `(?:^|.*?\\.)${p}`) : ['.*?\\.[^.]*'];
  for (const source of sources) {
    const index = pythonRegExp(source, (s) => `^${s}\\.(\\d+)\\.`)
      .exec(module)
      ?.at(-1);
    if (index !== undefined) return [layers].flat().includes(Number(index));
  }
  return false;
}

/** The value in `rank_pattern` or `alpha_pattern` whose key is the first to match the last segments of the name. */
function patternValue(patterns: Record<string, number>, module: string): number | undefined {
  const key = Object.keys(patterns).find((p) =>
    pythonRegExp(p, (source) => `^(.*\\.)?(${source})$`).test(module),
  );
  return key === undefined ? undefined : patterns[key];
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
  return config.target_modules
    .filter((target) => !isNamed([target], matched.find((module) => isNamed([target], module)) ?? ''))
    .map((target) => {
      const out = [...all].some((module) => isNamed([target], module));
      return out ? `${show(target)}: all its modules are excluded` : `${show(target)}${near(target)}`;
    });
}

/** The methods used of a RegExp. */
type Pattern = Pick<RegExp, 'test' | 'exec'>;

/** Converts a regular expression from Python's syntax: a leading (?i), named groups, \A and \Z. */
function pythonRegExp(source: string, frame: (source: string) => string): Pattern {
  const ignoreCase = source.startsWith('(?i)');
  const body = (ignoreCase ? source.slice(4) : source)
    .replaceAll('(?P<', '(?<')
    .replace(/\(\?P=(\w+)\)/g, '\\k<$1>')
    .replaceAll('\\A', '^')
    .replaceAll('\\Z', '$');
  try {
    const pattern = new RegExp(frame(body), ignoreCase ? 'i' : '');
    return mayTakeForever(body) ? withTimeLimit(pattern, source) : pattern;
  } catch (error) {
    throw new AdapterError(
      `${show(source)}: expected a regular expression: ${(error as Error).message}`,
      undefined,
      { cause: error },
    );
  }
}

/** Whether a regular expression has a repeated group or many repetitions, with which an untrusted adapter could hang. */
function mayTakeForever(source: string): boolean {
  return /\)[*+{]/.test(source) || (source.match(/[*+{]/g) ?? []).length > 3;
}

const MOST_MS = 1000;
/** Node's way to stop a search; undefined in browsers, which have no such module, so it is not imported. */
const vm = globalThis.process?.getBuiltinModule?.('node:vm');
const sandbox = vm?.createContext(Object.create(null) as { pattern?: RegExp; text?: string });
const search = vm && new vm.Script('pattern.exec(text)');

function withTimeLimit(pattern: RegExp, source: string): Pattern {
  if (!sandbox || !search) return pattern;
  const exec = (text: string) => {
    Object.assign(sandbox, { pattern, text });
    try {
      return search.runInContext(sandbox, { timeout: MOST_MS }) as RegExpExecArray | null;
    } catch (error) {
      throw new AdapterError(
        `${show(source)}: expected a regular expression that takes at most ${MOST_MS} ms on ${show(text)}`,
        undefined,
        { cause: error },
      );
    }
  };
  return { exec, test: (text) => exec(text) !== null };
}

function escape(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

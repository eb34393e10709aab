/** Adapters that were made on a part of the model, such as its language model (LAVIS's opt_model), put on the whole model. */
import type { Adapter } from './adapter';
import type { Shapes } from './match';
import { matchTargets, rankOf } from './match';
import { modulesAbove } from './trained';

/**
 * The adapter under the names of the whole model: itself if it already has them, or if no part of the model has its names.
 * Its targets become full names, because `fc1` of a language model must not also match the vision tower's.
 */
export function onWholeModel(adapter: Adapter, shapes: Shapes): Adapter {
  const all = [...shapes];
  const prefix = prefixOf(adapter, new Set(all.map(([name]) => name)));
  if (prefix === '') return adapter;
  const { config } = adapter;
  const inPart = all.flatMap(([name, shape]): [string, readonly number[]][] =>
    name.startsWith(prefix) ? [[name.slice(prefix.length), shape]] : [],
  );
  const targets = matchTargets(config, inPart, false);
  const saved = config.modules_to_save?.flatMap((entry) =>
    [...adapter.tensors.keys()].flatMap(modulesAbove).filter((module) => module.endsWith(entry)),
  );
  const patterns = targets.map(
    ({ module, r }) => [literal(prefix + module), r, alphaOf(adapter, module)] as const,
  );
  return {
    ...adapter,
    config: {
      ...config,
      target_modules:
        targets.length > 0 ? targets.map(({ module }) => prefix + module) : config.target_modules,
      exclude_modules: null,
      layers_to_transform: null,
      layers_pattern: null,
      rank_pattern: pattern(
        patterns.map(([name, r]) => [name, r]),
        config.r,
      ),
      alpha_pattern: pattern(
        patterns.map(([name, , alpha]) => [name, alpha]),
        config.lora_alpha,
      ),
      modules_to_save: saved ? [...new Set(saved)].map((module) => prefix + module) : null,
    },
    lora: new Map([...adapter.lora].map(([module, value]) => [prefix + module, value])),
    tensors: new Map([...adapter.tensors].map(([name, value]) => [prefix + name, value])),
  };
}

/** What stands before the adapter's names in the model, if it does so for every one of them; else nothing. */
function prefixOf({ lora, tensors }: Adapter, names: ReadonlySet<string>): string {
  const own = [...[...lora.keys()].map((module) => `${module}.weight`), ...tensors.keys()];
  const first = own[0];
  if (first === undefined || own.some((name) => names.has(name))) return '';
  const prefixes = [...names]
    .filter((name) => name.endsWith(`.${first}`))
    .map((name) => name.slice(0, name.length - first.length))
    .filter((prefix) => own.every((name) => names.has(prefix + name)));
  return prefixes.length === 1 ? prefixes[0]! : '';
}

const alphaOf = ({ config }: Adapter, module: string) => {
  const { r, scaling } = rankOf(config, module);
  return scaling * (config.use_rslora ? Math.sqrt(r) : r);
};

/** Only what differs from the configuration's value, up to rounding. */
function pattern(values: (readonly [string, number])[], usual: number): Record<string, number> {
  const differs = ([, value]: readonly [string, number]) => Math.abs(value - usual) > 1e-9 * Math.abs(usual);
  return Object.fromEntries(values.filter(differs));
}

const literal = (name: string) => name.replaceAll('.', '\\.');

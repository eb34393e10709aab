/** The `lora` block of a run: PEFT's LoraConfig under its own names. peft-lora checks the values. */
import { AdapterError, loraConfig, parseLoraConfig } from '@blip2/peft-lora';
import type { Check } from './checks';
import { boolean, choice, integer, number, strings, text } from './checks';
import type { Resolved } from './fields';
import { field, isRecord } from './fields';

const names = either(text, strings, 'a list of names, or a regular expression');
const index = integer({ min: 0 });

export const loraFields = {
  r: field(integer({ min: 1 }), { default: 16, doc: 'rank' }),
  lora_alpha: field(number({ above: 0 }), {
    default: 32,
    doc: 'what is added is scaled by lora_alpha / r, or lora_alpha / √r with use_rslora',
  }),
  lora_dropout: field(number({ min: 0, below: 1 }), {
    default: 0.05,
    doc: "dropout on the adapter's input",
  }),
  target_modules: field(names, {
    doc: 'modules that get an adapter: whole names or their ends, one regular expression on whole names, or all-linear; without it, q_proj, k_proj, v_proj, out_proj of OPT, q and v of T5, and query and value of the Q-Former in a model for retrieval',
  }),
  exclude_modules: field(names, { doc: 'modules to leave out; wins over target_modules' }),
  layers_to_transform: field(either(index, listOf(index), 'a layer index, or a list of them'), {
    doc: 'only layers of these indexes, with a list of targets',
  }),
  layers_pattern: field(names, { doc: 'name of the list of layers that layers_to_transform counts in' }),
  rank_pattern: field(byName(integer({ min: 1 }), 'rank'), { doc: 'ranks that differ from r' }),
  alpha_pattern: field(byName(number({ above: 0 }), 'alpha'), { doc: 'alphas that differ from lora_alpha' }),
  use_rslora: field(boolean, { doc: 'scale by √r, so that high ranks learn as fast as low ones' }),
  use_dora: field(boolean, {
    doc: 'DoRA: learn the length of each row of the adapted weight apart from its direction',
  }),
  lora_bias: field(boolean, { doc: 'give lora_B a bias' }),
  init_lora_weights: field(
    either(boolean, choice('gaussian', 'orthogonal'), 'true, false, gaussian or orthogonal'),
    { doc: 'how A and B begin; with false the fresh adapter changes the outputs' },
  ),
  bias: field(choice('none', 'all', 'lora_only'), {
    doc: 'which biases of the base train: of the whole model, or of adapted modules',
  }),
  modules_to_save: field(strings, {
    doc: 'modules that train whole and are stored beside LoRA: ends of their names',
  }),
};

export type LoraSettings = Resolved<typeof loraFields>;

function either<A, B>(a: Check<A>, b: Check<B>, expected: string): Check<A | B> {
  return {
    expected,
    schema: { anyOf: [a.schema, b.schema] },
    accepts: (value): value is A | B => a.accepts(value) || b.accepts(value),
  };
}

function listOf<T>(item: Check<T>): Check<T[]> {
  return {
    expected: `a list, each ${item.expected}`,
    schema: { type: 'array', items: item.schema, minItems: 1 },
    accepts: (value): value is T[] => Array.isArray(value) && value.length > 0 && value.every(item.accepts),
  };
}

function byName<T>(item: Check<T>, what: string): Check<Record<string, T>> {
  return {
    expected: `a mapping of module name (or regular expression) to ${what}`,
    schema: { type: 'object', additionalProperties: item.schema },
    accepts: (value): value is Record<string, T> =>
      isRecord(value) && Object.values(value).every(item.accepts),
  };
}

/** Problems of PEFT options that are not supported. They are removed from `given`, so that each is reported once. */
export function refusedOptions(given: unknown): { problems: string[]; rest: unknown } {
  if (!isRecord(given)) return { problems: [], rest: given };
  const rest = { ...given };
  const problems = Object.entries(given).flatMap(([name, value]) => {
    if (Object.hasOwn(loraFields, name)) return [];
    const found = problemsOf(() =>
      parseLoraConfig({ peft_type: 'LORA', target_modules: 'x', [name]: value }),
    );
    if (found.length > 0) delete rest[name];
    return found;
  });
  return { problems, rest };
}

/** Combinations of valid options that PEFT refuses. */
export function loraContradictions(lora: LoraSettings): string[] {
  return problemsOf(() => loraConfig(lora));
}

function problemsOf(check: () => unknown): string[] {
  try {
    check();
    return [];
  } catch (error) {
    if (error instanceof AdapterError) return error.problems.map((problem) => `lora.${problem}`);
    throw error;
  }
}

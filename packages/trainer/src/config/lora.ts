/** The `lora` block of a run: PEFT's LoraConfig under its own names. What it may hold is decided by peft-lora. */
import type { LoraConfig } from '@blip2/peft-lora';
import { AdapterError, loraConfig, parseLoraConfig } from '@blip2/peft-lora';
import type { Check, ConfigSchema } from './checks';
import { boolean, choice, integer, number, strings } from './checks';

type Given = Omit<LoraConfig, 'base_model_name_or_path' | 'other'>;
export type LoraSettings = Partial<Given> & Pick<Given, 'r' | 'lora_alpha' | 'lora_dropout'>;

const names: Check = (value) =>
  typeof value === 'string' && value !== '' ? undefined : strings(value) && 'a list of names, or a regular expression'; // prettier-ignore
const indexes: Check = (value) => {
  const list = Array.isArray(value) ? value : [value];
  const ok = list.length > 0 && list.every((one) => Number.isSafeInteger(one) && (one as number) >= 0);
  return ok ? undefined : 'a layer index, or a list of them';
};
const byName = (rule: Check, what: string): Check => {
  const expected = `a mapping of module name (or regular expression) to ${what}`;
  return (value) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return expected;
    return Object.values(value).every((one) => rule(one) === undefined) ? undefined : expected;
  };
};
const init: Check = (value) =>
  typeof value === 'boolean' ? undefined : choice('gaussian', 'orthogonal')(value) && 'true, false, gaussian or orthogonal'; // prettier-ignore

export const loraSchema: ConfigSchema = {
  /** rank */
  r: integer({ min: 1 }),
  /** what is added is scaled by lora_alpha / r, or lora_alpha / √r with use_rslora */
  lora_alpha: number({ above: 0 }),
  /** dropout on the adapter's input */
  lora_dropout: number({ min: 0, below: 1 }),
  /** modules that get an adapter: whole names or their ends, one regular expression on whole names, or all-linear; without it, q_proj, k_proj, v_proj, out_proj */
  'target_modules?': names,
  /** modules to leave out; wins over target_modules */
  'exclude_modules?': names,
  /** only layers of these indexes, with a list of targets */
  'layers_to_transform?': indexes,
  /** name of the list of layers that layers_to_transform counts in */
  'layers_pattern?': names,
  /** ranks that differ from r */
  'rank_pattern?': byName(integer({ min: 1 }), 'rank'),
  /** alphas that differ from lora_alpha */
  'alpha_pattern?': byName(number({ above: 0 }), 'alpha'),
  /** scale by √r, so that high ranks learn as fast as low ones */
  'use_rslora?': boolean,
  /** DoRA: learn the length of each row of the adapted weight apart from its direction */
  'use_dora?': boolean,
  /** give lora_B a bias */
  'lora_bias?': boolean,
  /** how A and B begin; with false the fresh adapter changes the outputs */
  'init_lora_weights?': init,
  /** which biases of the base train: of the whole model, or of adapted modules */
  'bias?': choice('none', 'all', 'lora_only'),
  /** modules that train whole and are stored beside LoRA: ends of their names */
  'modules_to_save?': strings,
};

/** Options of PEFT that exist and are refused, by name; they are taken out of `given`, so that nothing else complains. */
export function refusedOptions(given: Record<string, unknown>): {
  problems: string[];
  rest: Record<string, unknown>;
} {
  const rest = { ...given };
  const problems = Object.entries(given).flatMap(([name, value]) => {
    if (name in loraSchema || `${name}?` in loraSchema) return [];
    const found = problemsOf(() =>
      parseLoraConfig({ peft_type: 'LORA', target_modules: 'x', [name]: value }),
    );
    if (found.length > 0) delete rest[name];
    return found;
  });
  return { problems, rest };
}

/** What PEFT refuses together although each option is right. */
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

/**
 * PEFT's LoraConfig (peft 0.21 `tuners/lora/config.py`): the supported options, and a strict reader and writer of
 * adapter_config.json. An unsupported option that would change results is refused, never ignored.
 */
import { isRecord, show } from '@blip2/weights';
import { AdapterError, list } from './errors';

/** Names, meanings and defaults are PEFT's. */
export interface LoraConfig {
  /** Rank. */
  r: number;
  /** The adapter's output is scaled by lora_alpha / r, or lora_alpha / √r with `use_rslora`. */
  lora_alpha: number;
  /** Dropout rate on the adapter's input, in [0, 1). */
  lora_dropout: number;
  /** Module names (whole, or their last segments), one regular expression on whole names, or `all-linear`. */
  target_modules: string | string[];
  /** Modules to leave out, matched in the same way; overrides `target_modules`. */
  exclude_modules: string | string[] | null;
  /** With a list of targets: only layers of these indexes. */
  layers_to_transform: number | number[] | null;
  /** Name of the list of layers to which the indexes of `layers_to_transform` refer. */
  layers_pattern: string | string[] | null;
  /** Ranks that differ from `r`: regular expression on the end of the module's name → rank. */
  rank_pattern: Record<string, number>;
  /** Alphas that differ from `lora_alpha`, likewise. */
  alpha_pattern: Record<string, number>;
  use_rslora: boolean;
  /** DoRA: learn the length of each row of the adapted weight separately from its direction. */
  use_dora: boolean;
  /** Adds a bias to lora_B. */
  lora_bias: boolean;
  /**
   * true: A uniform in ±1/√in, B zero. gaussian: A normal with deviation 1/r, B zero. orthogonal: both random, B·A zero.
   * false: B also random, so that a fresh adapter changes the outputs.
   */
  init_lora_weights: boolean | 'gaussian' | 'orthogonal';
  /** Which of the base's biases train: `all` of the whole model, or those of adapted modules. */
  bias: 'none' | 'all' | 'lora_only';
  /** Ends of the names of modules to train and store whole. `saveAdapter` adds other modules that train. */
  modules_to_save: string[] | null;
  /** Information for users and for PEFT; this package does not open it. */
  base_model_name_or_path: string | null;
  /** All other fields of an adapter_config.json, written unchanged. */
  other: Record<string, unknown>;
}

/** PEFT's marker for "no LoRA, only modules_to_save". */
export const NO_TARGETS = 'dummy-target-modules';

const DEFAULTS: LoraConfig = {
  r: 8,
  lora_alpha: 8,
  lora_dropout: 0,
  target_modules: [],
  exclude_modules: null,
  layers_to_transform: null,
  layers_pattern: null,
  rank_pattern: {},
  alpha_pattern: {},
  use_rslora: false,
  use_dora: false,
  lora_bias: false,
  init_lora_weights: true,
  bias: 'none',
  modules_to_save: null,
  base_model_name_or_path: null,
  other: {},
};

const INITS = ['gaussian', 'orthogonal'];

/** Unsupported options of PEFT that change results: accepted only when off. */
const MUST_BE_OFF = [
  'use_qalora',
  'use_bdlora',
  'target_parameters',
  'trainable_token_indices',
  'layer_replication',
  'alora_invocation_tokens',
  'arrow_config',
  'kasa_config',
  'velora_config',
  'monteclora_config',
  'megatron_config',
  'enable_lora',
];

const FIXED: Record<string, unknown> = { peft_type: 'LORA', inference_mode: true, fan_in_fan_out: false };
const AUTO_MAPPING = {
  base_model_class: 'Blip2ForConditionalGeneration',
  parent_library: 'transformers.models.blip_2.modeling_blip_2',
};
/** Written even if they are off; PEFT 0.6 reads them. */
const IN_EVERY_FILE = ['base_model_name_or_path', 'fan_in_fan_out', 'init_lora_weights', 'target_modules'];
/** Fields of PEFT's files that change nothing in LoRA on Linear modules. */
const NEVER = ['megatron_core', 'qalora_group_size', 'peft_version', 'ensure_weight_tying', 'merge_weights'];

/** What adapters of other methods are, and whether they can be merged in Python. */
const METHODS: Readonly<Record<string, string>> = {
  ADALORA: 'AdaLoRA',
  IA3: 'IA3',
  LOHA: 'LoHa',
  LOKR: 'LoKr',
  OFT: 'OFT',
  BOFT: 'BOFT',
  VERA: 'VeRA',
  HRA: 'HRA',
  FOURIERFT: 'FourierFT',
  PROMPT_TUNING: 'prompt tuning',
  MULTITASK_PROMPT_TUNING: 'multitask prompt tuning',
  P_TUNING: 'p-tuning',
  PREFIX_TUNING: 'prefix tuning',
  ADAPTION_PROMPT: 'LLaMA-Adapter',
};

/**
 * Checks options and adds the defaults.
 * @throws AdapterError with every wrong option
 */
export function loraConfig(options: Partial<LoraConfig> = {}, where = 'LoraConfig'): LoraConfig {
  const set = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const unknown = Object.keys(set).filter((field) => !Object.hasOwn(DEFAULTS, field));
  if (unknown.length > 0) {
    throw new AdapterError(
      `${where}: unknown option ${unknown.join(', ')}; known: ${Object.keys(DEFAULTS).join(', ')}`,
    );
  }
  const config = { ...structuredClone(DEFAULTS), ...set };
  const problems = [...wrongFields(config), ...unsupported(config.other)];
  if (problems.length > 0) throw new AdapterError(`${where}:\n${list(problems)}`, problems);
  return config;
}

/**
 * Parses an adapter_config.json. Fields that this package does not use are kept in `other`.
 * @param where the file, for messages
 * @throws AdapterError with every wrong or unsupported field
 */
export function parseLoraConfig(json: unknown, where = 'adapter_config.json'): LoraConfig {
  if (!isRecord(json)) throw new AdapterError(`${where}: expected a JSON object, found ${show(json)}`);
  const { peft_type, ...fields } = json;
  if (peft_type !== 'LORA') {
    throw new AdapterError(
      `${where}: peft_type: expected "LORA", found ${show(peft_type)}: ${otherMethod(peft_type)}`,
    );
  }
  if (fields['target_modules'] === undefined || fields['target_modules'] === null) {
    throw new AdapterError(
      `${where}: target_modules: expected a list or a string, found ${show(fields['target_modules'])}`,
    );
  }
  const options: Record<string, unknown> = {};
  const other: Record<string, unknown> = {};
  for (const [field, value] of Object.entries(fields)) {
    if (Object.hasOwn(DEFAULTS, field) && field !== 'other') options[field] = value;
    else other[field] = value;
  }
  for (const field of ['rank_pattern', 'alpha_pattern']) if (options[field] === null) delete options[field];
  return loraConfig({ ...options, other } as Partial<LoraConfig>, where);
}

/**
 * The text of adapter_config.json in PEFT's format: two spaces, sorted keys, inference_mode true. Fields that are off are not
 * written, because a PEFT that does not know a field cannot read the file (huggingface/peft#1979): PEFT 0.6 reads it.
 * Unlike in PEFT the patterns keep their order, because the first match counts, so sorting can change an adapter.
 * `fan_in_fan_out` has no effect on Linear modules and is set to false, as in PEFT.
 */
export function formatLoraConfig(config: LoraConfig): string {
  const { other, ...fields } = config;
  const all = { auto_mapping: AUTO_MAPPING, ...other, ...fields, ...FIXED };
  const isWritten = ([field, value]: [string, unknown]) =>
    IN_EVERY_FILE.includes(field) ||
    !(value === null || NEVER.includes(field) || (isOff(value) && isOptional(field)));
  const written = Object.fromEntries(Object.entries(all).filter(isWritten));
  const patterns = ['rank_pattern', 'alpha_pattern'].filter((field) => field in written);
  const inOrder = Object.fromEntries(patterns.map((field) => [field, written[field]]));
  return JSON.stringify({ ...(sortKeys(written) as object), ...inOrder }, null, 2);
}

const isOptional = (field: string) =>
  Object.hasOwn(DEFAULTS, field) || MUST_BE_OFF.includes(field) || field === 'loftq_config';

function otherMethod(type: unknown): string {
  const name = typeof type === 'string' && Object.hasOwn(METHODS, type) ? METHODS[type]! : 'another method';
  const isPrompt = /prompt|prefix|p-tuning|LLaMA/.test(name);
  return isPrompt
    ? `${name}, which adds vectors to the input and cannot be merged; train LoRA instead`
    : `${name}, which is not supported; merge it in Python (PeftModel.from_pretrained, merge_and_unload, save_pretrained), and ` +
        'use the merged model as --model';
}

function wrongFields(c: LoraConfig): string[] {
  const problems: string[] = [];
  const expect = (field: keyof LoraConfig, ok: boolean, expected: string) => {
    if (!ok) problems.push(`${field}: expected ${expected}, found ${show(c[field])}`);
  };
  const isRank = (value: unknown) => Number.isSafeInteger(value) && (value as number) > 0;
  const isPattern = (value: unknown, ok: (v: unknown) => boolean) =>
    isRecord(value) && Object.values(value).every(ok);
  const isName = (value: unknown) => typeof value === 'string' && value !== '';
  const isNames = (value: unknown) => Array.isArray(value) && value.every(isName);
  const isIndex = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;

  expect('r', isRank(c.r), 'a whole number > 0');
  expect('lora_alpha', Number.isFinite(c.lora_alpha), 'a number');
  expect('lora_dropout', c.lora_dropout >= 0 && c.lora_dropout < 1, 'a number in [0, 1)');
  expect(
    'target_modules',
    isName(c.target_modules) || isNames(c.target_modules),
    'names, a regular expression or "all-linear"',
  );
  const { exclude_modules: exclude, layers_to_transform: layers, layers_pattern: pattern } = c;
  expect(
    'exclude_modules',
    exclude === null || typeof exclude === 'string' || isNames(exclude),
    'names, a regular expression or null',
  );
  expect(
    'layers_to_transform',
    layers === null || isIndex(layers) || (Array.isArray(layers) && layers.every(isIndex)),
    'layer indexes or null',
  );
  expect(
    'layers_pattern',
    pattern === null || typeof pattern === 'string' || isNames(pattern),
    'names or null',
  );
  expect('rank_pattern', isPattern(c.rank_pattern, isRank), 'an object of name → rank > 0');
  expect('alpha_pattern', isPattern(c.alpha_pattern, Number.isFinite), 'an object of name → number');
  for (const field of ['use_rslora', 'use_dora', 'lora_bias'] as const) {
    expect(field, typeof c[field] === 'boolean', 'true or false');
  }
  expect(
    'init_lora_weights',
    typeof c.init_lora_weights === 'boolean' || INITS.includes(c.init_lora_weights),
    'true, false, "gaussian" or "orthogonal" (others change the base weights or need data; PEFT\'s save_pretrained ' +
      'converts such an adapter with path_initial_model_for_weight_conversion)',
  );
  expect('bias', ['none', 'all', 'lora_only'].includes(c.bias), '"none", "all" or "lora_only"');
  expect('modules_to_save', c.modules_to_save === null || isNames(c.modules_to_save), 'module names or null');
  const { base_model_name_or_path: base } = c;
  expect('base_model_name_or_path', base === null || typeof base === 'string', 'a string or null');
  expect('other', isRecord(c.other), 'an object');
  problems.push(...wrongCombinations(c));
  return problems;
}

/** Combinations of valid fields that PEFT refuses. */
function wrongCombinations(c: LoraConfig): string[] {
  const { layers_to_transform: layers, layers_pattern: pattern } = c;
  const problems: string[] = [];
  if (c.lora_bias && c.use_dora) problems.push('lora_bias: expected false together with use_dora');
  if (c.lora_bias && typeof c.init_lora_weights !== 'boolean')
    problems.push(`lora_bias: expected init_lora_weights true or false, found ${show(c.init_lora_weights)}`);
  const ranks = [c.r, ...Object.values(c.rank_pattern ?? {})];
  if (c.init_lora_weights === 'orthogonal' && ranks.some((r) => r % 2 !== 0))
    problems.push(`init_lora_weights: "orthogonal" needs even ranks, found ${show(ranks)}`);
  if (typeof c.target_modules === 'string' && layers !== null) {
    problems.push('layers_to_transform: expected a list of target_modules, found a regular expression');
  }
  if (layers === null && pattern !== null && pattern.length > 0) {
    problems.push('layers_pattern: needs layers_to_transform');
  }
  return problems;
}

function unsupported(other: Record<string, unknown>): string[] {
  const own = Object.keys(other).filter((field) => Object.hasOwn(DEFAULTS, field));
  if (own.length > 0) return own.map((field) => `other.${field}: expected outside "other"`);
  return MUST_BE_OFF.filter((field) => !isOff(other[field])).map(
    (field) =>
      `${field}: expected off (not supported, and it would change the results), found ${show(other[field])}`,
  );
}

function isOff(value: unknown): boolean {
  if (value === undefined || value === null || value === false) return true;
  return typeof value === 'object' && Object.keys(value).length === 0;
}

function sortKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sortKeys);
  if (!isRecord(value)) return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, child]) => [key, sortKeys(child)]),
  );
}

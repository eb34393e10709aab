/** Options of generation under transformers' names: defaults and checks. */
import type { TextConfig } from '@blip2/nn';
import { ModelError } from './config';
import type { Blip2Config } from './config';
import type { Blip2 } from './model';
import type { TextDecoder } from './stop-strings';
import type { TokenBatch } from './tokens';

export interface GenerateOptions {
  /**
   * Most new tokens per row, end token included; the prompt and the image do not count. By default 20, or as many as end at
   * the model's last position.
   */
  max_new_tokens?: number;
  /** 1 (greedy, or sampling with do_sample) by default. */
  num_beams?: number;
  /** Beam search: above 0 favours long texts, below 0 short ones; 1 by default. */
  length_penalty?: number;
  /**
   * Beam search: true stops at num_beams finished texts; false, the default, goes on while a better one seems possible at
   * the present length; "never" while one seems possible at any length.
   */
  early_stopping?: boolean | 'never';
  /** The config's text_config.eos_token_id by default; several end a text too. */
  eos_token_id?: number | readonly number[];
  min_new_tokens?: number;
  repetition_penalty?: number;
  no_repeat_ngram_size?: number;
  /** Texts per prompt: the best beams, or as many draws; 1 by default. */
  num_return_sequences?: number;
  /** Draw tokens by their probabilities instead of taking the likeliest; false by default. */
  do_sample?: boolean;
  /** Sampling: above 1 flattens the distribution, below 1 sharpens it; 1 by default. */
  temperature?: number;
  /** Sampling: only the k likeliest tokens; 50 by default as in transformers, 0 allows all. */
  top_k?: number;
  /** Sampling: only the likeliest tokens that make up this much probability; 1 by default, which allows all. */
  top_p?: number;
  /** Sampling: the same seed draws the same texts, on any backend and in any batch; 0 by default. */
  seed?: number;
  /** Sampling: number of the batch's first prompt among all that share the seed; 0 by default. */
  first_row?: number;
  /** A text ends with the token that completes one of these; needs `tokenizer`. The token stays. */
  stop_strings?: string | readonly string[];
  /** Turns ids into text for `stop_strings`. */
  tokenizer?: TextDecoder;
  /**
   * Greedy search: tokens that may follow the new ones so far, such as `draftsOf`. They are checked in one pass of the text model, so a text
   * that is alone in its batch takes fewer passes. It is the same text; text models that cannot do it ignore this.
   */
  draft?: (fresh: readonly number[]) => readonly number[];
  /** Allow images of another size than the checkpoint's, by interpolating its position embeddings. */
  interpolate_pos_encoding?: boolean;
}

export interface Settings extends Required<
  Omit<GenerateOptions, 'eos_token_id' | 'stop_strings' | 'tokenizer' | 'draft'>
> {
  draft: GenerateOptions['draft'];
  eos_token_id: readonly number[];
  stop_strings: readonly string[];
  tokenizer: TextDecoder | undefined;
}

/** Options of transformers that are replaced by others, with advice. */
const REPLACED: Record<string, string> = {
  max_length: 'it would count image tokens and prompt; use max_new_tokens, which counts new tokens only',
  min_length: 'it would count image tokens and prompt; use min_new_tokens, which counts new tokens only',
  streamer: 'use streamTokens instead of generate',
};

/**
 * The options with their defaults.
 * @throws ModelError that names every bad option
 */
export function settings({ config }: Blip2, tokens: TokenBatch, options: GenerateOptions): Settings {
  const { eos_token_id, max_position_embeddings, vocab_size }: TextConfig = config.text_config;
  const max_new_tokens = options.max_new_tokens ?? defaultNewTokens(config, tokens);
  const defaults: Settings = {
    max_new_tokens,
    num_beams: 1,
    length_penalty: 1,
    early_stopping: false,
    eos_token_id: [eos_token_id],
    min_new_tokens: 0,
    repetition_penalty: 1,
    no_repeat_ngram_size: 0,
    num_return_sequences: 1,
    do_sample: false,
    temperature: 1,
    top_k: 50,
    top_p: 1,
    seed: 0,
    first_row: 0,
    stop_strings: [],
    tokenizer: undefined,
    draft: undefined,
    interpolate_pos_encoding: false,
  };
  const set = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const o: Settings = {
    ...defaults,
    ...set,
    eos_token_id: listOf(options.eos_token_id ?? eos_token_id),
    stop_strings: listOf(options.stop_strings ?? []),
  };
  const unknown = Object.keys(set).filter((name) => !(name in defaults));
  const problems = [...unknown.map(unknownOption), ...wrongNumbers(o, vocab_size), ...contradictions(o)];
  if (problems.length > 0) throw new ModelError(`generate: ${problems.join('; ')}`);
  refuseTooLong(tokens, o.max_new_tokens, max_position_embeddings);
  return o;
}

/** Checks what `generate` would refuse, without a computation. @throws ModelError as `generate` */
export function checkOptions(model: Blip2, tokens: TokenBatch, options: GenerateOptions): void {
  settings(model, tokens, options);
}

const listOf = <T>(value: T | readonly T[]): readonly T[] => (Array.isArray(value) ? value : [value as T]);

function unknownOption(name: string): string {
  return `${name}: ${Object.hasOwn(REPLACED, name) ? REPLACED[name] : 'there is no such option'}`;
}

function wrongNumbers(o: Settings, vocab_size: number): string[] {
  const check = (name: keyof Settings, ok: boolean, expected: string) =>
    ok ? [] : [`${name}: expected ${expected}, found ${JSON.stringify(o[name]) ?? String(o[name])}`];
  const whole = (name: keyof Settings, least: number) =>
    check(
      name,
      Number.isSafeInteger(o[name]) && (o[name] as number) >= least,
      `a whole number of at least ${least}`,
    );
  return [
    ...whole('max_new_tokens', 1),
    ...whole('num_beams', 1),
    ...whole('min_new_tokens', 0),
    ...whole('no_repeat_ngram_size', 0),
    ...whole('num_return_sequences', 1),
    ...whole('top_k', 0),
    ...whole('seed', 0),
    ...whole('first_row', 0),
    ...check('repetition_penalty', o.repetition_penalty > 0, 'a number above 0'),
    ...check('temperature', o.temperature > 0, 'a number above 0 (for greedy search set do_sample to false)'),
    ...check('top_p', o.top_p >= 0 && o.top_p <= 1, 'a number in [0, 1]'),
    ...check('length_penalty', Number.isFinite(o.length_penalty), 'a number'),
    ...check('early_stopping', [true, false, 'never'].includes(o.early_stopping), 'true, false or "never"'),
    ...check(
      'eos_token_id',
      o.eos_token_id.length > 0 && o.eos_token_id.every((id) => Number.isInteger(id) && id >= 0),
      'token ids',
    ),
    ...check(
      'stop_strings',
      o.stop_strings.every((s) => typeof s === 'string' && s !== ''),
      'texts that are not empty',
    ),
    ...check(
      'num_beams',
      candidates(o) <= vocab_size,
      `at most ${Math.floor(vocab_size / candidates({ ...o, num_beams: 1 }))}`,
    ),
  ];
}

function contradictions(o: Settings): string[] {
  const { num_beams, num_return_sequences: n, do_sample } = o;
  return [
    o.min_new_tokens > o.max_new_tokens &&
      `min_new_tokens ${o.min_new_tokens} exceeds max_new_tokens ${o.max_new_tokens}`,
    do_sample && num_beams > 1 && 'do_sample with num_beams above 1 is not supported; choose one of them',
    !do_sample &&
      num_beams === 1 &&
      n > 1 &&
      `num_return_sequences ${n}: greedy search finds one text; set do_sample, or num_beams to at least ${n}`,
    num_beams > 1 && n > num_beams && `num_return_sequences ${n} exceeds num_beams ${num_beams}`,
    o.draft &&
      (do_sample || num_beams > 1) &&
      'draft is for greedy search; leave out do_sample and num_beams',
    o.stop_strings.length > 0 && !o.tokenizer && 'stop_strings needs tokenizer, to turn ids into text',
  ].filter((problem) => typeof problem === 'string');
}

/** Number of extensions that a beam step considers: each beam can propose each end token at most once. */
export function candidates({
  num_beams,
  eos_token_id,
}: Pick<Settings, 'num_beams' | 'eos_token_id'>): number {
  return Math.max(2, 1 + eos_token_id.length) * num_beams;
}

/**
 * The length where none was asked for: `usual` new tokens, fewer if prompt and new tokens together would exceed the model's
 * positions. Reference: `GenerationMixin._prepare_generated_length` of transformers 5.23.
 * @throws ModelError if the longest prompt fills all positions
 */
export function defaultNewTokens(
  { text_config: { max_position_embeddings: positions = Infinity } }: Pick<Blip2Config, 'text_config'>,
  tokens: TokenBatch,
  usual = 20,
): number {
  const longest = longestRow(tokens);
  if (longest < positions) return Math.min(usual, positions - longest);
  throw new ModelError(
    `generate: a prompt of ${longest} tokens leaves no room for new ones in the model's ${positions} positions ` +
      '(max_position_embeddings); shorten the prompt',
  );
}

function longestRow({ attention_mask, shape: [B, T] }: TokenBatch): number {
  const sums = Array.from({ length: B }, (_, b) =>
    attention_mask.subarray(b * T, (b + 1) * T).reduce((sum, m) => sum + m, 0),
  );
  return Math.max(...sums);
}

function refuseTooLong(tokens: TokenBatch, max_new_tokens: number, positions = Infinity): void {
  const longest = longestRow(tokens);
  if (longest + max_new_tokens - 1 > positions)
    throw new ModelError(
      `generate: a prompt of ${longest} tokens and ${max_new_tokens} new ones exceed the model's ` +
        `${positions} positions (max_position_embeddings); lower max_new_tokens`,
    );
}

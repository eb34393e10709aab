/**
 * Greedy and beam search with a KV cache. Reference: `GenerationMixin.generate` of transformers 5 with `do_sample=False`.
 * B rows of a batch, T prompt positions, V vocabulary. Scores come to the host once per token; only the cache stays.
 */
import { dispose, keep, reshape, slice, tidy, type Tensor2D, type Tensor3D } from '@blip2/nn';
import { decode, embedTokens, lmLogits, reorderCache, type KvCache } from '@blip2/opt-decoder';
import { startBeams, stepBeams, type BeamState } from './beam-search';
import { ModelError } from './config';
import { inputEmbeds, type ImageInput } from './forward';
import type { Blip2 } from './model';
import { applyRules, argMax, logSoftmax, type History, type ScoreRules } from './score-rules';
import type { TokenBatch } from './tokens';

export interface GenerateOptions {
  /** Most new tokens per row, end token included; 20 by default. The prompt and the image do not count. */
  max_new_tokens?: number;
  /** 1 (greedy) by default. */
  num_beams?: number;
  /** Beam search: above 0 favours long texts, below 0 short ones; 1 by default. */
  length_penalty?: number;
  /** Beam search: true stops at num_beams finished texts; false, the default, goes on while a better one seems possible. */
  early_stopping?: boolean;
  /** The config's text_config.eos_token_id by default. */
  eos_token_id?: number;
  min_new_tokens?: number;
  repetition_penalty?: number;
  no_repeat_ngram_size?: number;
}

type Settings = Required<GenerateOptions>;

/**
 * Continues each row's prompt; the new ids only, without the end token. Prompts of unequal length are padded on the left
 * (before or after the image tokens). For a bare image the prompt is `imagePrompt(config, B)`.
 * Throws `ModelError` for options out of range, a prompt that ends with padding, one too long for the model, or scores that
 * are NaN.
 */
export async function generate(
  model: Blip2,
  image: ImageInput | undefined,
  tokens: TokenBatch,
  options: GenerateOptions = {},
): Promise<number[][]> {
  const o = settings(model, tokens, options);
  const prompts = promptRows(tokens);
  const decoder = new Decoder(model, tokens);
  try {
    await decoder.prefill(image, tokens);
    const found = o.num_beams === 1 ? await greedy(decoder, prompts, o) : await beams(decoder, prompts, o);
    return found.map((ids) => (ids[ids.length - 1] === o.eos_token_id ? ids.slice(0, -1) : [...ids]));
  } finally {
    decoder.dispose();
  }
}

type Prompt = Omit<History, 'fresh'>;

/** The likeliest next token, again and again; rows that have ended leave the batch. */
async function greedy(decoder: Decoder, prompts: Prompt[], o: Settings): Promise<number[][]> {
  const texts: number[][] = prompts.map(() => []);
  let open = prompts.map((_, row) => row);
  for (;;) {
    open.forEach((row, i) => {
      const scores = decoder.scores[i];
      applyRules(scores, { ...prompts[row], fresh: texts[row] }, o);
      texts[row].push(argMax(scores));
    });
    const goesOn = (row: number) =>
      texts[row].at(-1) !== o.eos_token_id && texts[row].length < o.max_new_tokens;
    const from = open.flatMap((row, i) => (goesOn(row) ? [i] : []));
    open = from.map((i) => open[i]);
    if (open.length === 0) return texts;
    await decoder.step(
      open.map((row) => texts[row].at(-1)!),
      from,
    );
  }
}

/** Beam search on every row; rows whose search has ended leave the batch. */
async function beams(
  decoder: Decoder,
  prompts: Prompt[],
  o: Settings,
): Promise<readonly (readonly number[])[]> {
  const states: BeamState[] = prompts.map(() => startBeams(o.num_beams));
  let open = prompts.map((_, row) => row);
  let width = 1; // after the prompt all beams of a row share one row of scores
  for (;;) {
    open.forEach((row, i) => {
      const logProbs = states[row].running.map(({ ids }, beam) => {
        const scores = logSoftmax(decoder.scores[i * width + (beam % width)]);
        applyRules(scores, { ...prompts[row], fresh: ids }, o);
        return scores;
      });
      states[row] = stepBeams(states[row], logProbs, o);
    });
    const going = open.flatMap((row, i) => (states[row].done ? [] : [{ row, i }]));
    if (going.length === 0) return states.map(({ finished }) => finished[0].ids);
    const from = going.flatMap(({ row, i }) => states[row].parents.map((beam) => i * width + (beam % width)));
    const last = going.flatMap(({ row }) => states[row].running.map(({ ids }) => ids.at(-1)!));
    open = going.map(({ row }) => row);
    width = o.num_beams;
    await decoder.step(last, from);
  }
}

/** The text model between two tokens: its cache on the backend, each row's mask and last scores on the host. */
class Decoder {
  /** Scores of the next token, one row [V] each; free to be changed. */
  scores: Float32Array[] = [];
  private cache: KvCache | undefined;
  private masks: number[][];

  constructor(
    private readonly model: Blip2,
    { attention_mask, shape: [B, T] }: TokenBatch,
  ) {
    this.masks = Array.from({ length: B }, (_, b) => [...attention_mask.subarray(b * T, (b + 1) * T)]);
  }

  /** Runs image and prompt. */
  async prefill(image: ImageInput | undefined, tokens: TokenBatch): Promise<void> {
    await this.advance(() => inputEmbeds(this.model, image, tokens));
  }

  /** Appends one token to each row, row i being a continuation of the former row `from[i]`. */
  async step(ids: number[], from: number[]): Promise<void> {
    const moved = from.length !== this.masks.length || from.some((row, i) => row !== i);
    this.masks = from.map((row) => [...this.masks[row], 1]);
    const { language_model } = this.model.params;
    await this.advance(
      () => embedTokens(language_model, Int32Array.from(ids), [ids.length, 1]),
      moved ? (cache) => reorderCache(cache, Int32Array.from(from)) : undefined,
    );
  }

  dispose(): void {
    if (this.cache) dispose(this.cache.layers);
    this.cache = undefined;
  }

  private async advance(embeds: () => Tensor3D, reorder = (cache: KvCache) => cache): Promise<void> {
    const { params, config } = this.model;
    const attention_mask = Int32Array.from(this.masks.flat());
    const past = this.cache;
    const logits = tidy(() => {
      const x = embeds(); // [B, T, D], T = 1 after the prompt
      const o = { attention_mask, cache: past && reorder(past), useCache: true };
      const { hidden, cache } = decode(params.language_model, x, config.text_config, o);
      const [B, T, D] = hidden.shape;
      const last = reshape<Tensor2D>(slice(hidden, [0, T - 1, 0], [B, 1, D]), [B, D]);
      const scores = lmLogits(params.language_model, last); // [B, V]
      cache!.layers.forEach(({ k, v }) => [k, v].forEach(keep));
      this.cache = cache;
      return scores;
    });
    if (past) dispose(past.layers);
    const [B, V] = logits.shape;
    const values = (await logits.data()) as Float32Array;
    logits.dispose();
    this.scores = Array.from({ length: B }, (_, b) => values.slice(b * V, (b + 1) * V));
    const bad = this.scores.findIndex(([first]) => Number.isNaN(first)); // a NaN in the hidden state reaches every score
    if (bad >= 0)
      throw new ModelError(
        `generate: the model's scores of row ${bad} are not numbers (NaN); are weights, adapter or image features damaged?`,
      );
  }
}

function promptRows({ input_ids, attention_mask, shape: [B, T] }: TokenBatch): Prompt[] {
  return Array.from({ length: B }, (_, b) => {
    const mask = attention_mask.subarray(b * T, (b + 1) * T);
    if (mask[T - 1] !== 1)
      throw new ModelError(`generate: row ${b} of the prompt ends with padding; pad prompts on the left`);
    return { prompt: [...input_ids.subarray(b * T, (b + 1) * T)], start: mask.indexOf(1) };
  });
}

function settings({ config }: Blip2, tokens: TokenBatch, given: GenerateOptions): Settings {
  const { eos_token_id, max_position_embeddings, vocab_size } = config.text_config;
  const defaults: Settings = {
    max_new_tokens: 20,
    num_beams: 1,
    length_penalty: 1,
    early_stopping: false,
    eos_token_id,
    min_new_tokens: 0,
    repetition_penalty: 1,
    no_repeat_ngram_size: 0,
  };
  const set = Object.entries(given).filter(([, value]) => value !== undefined);
  const o: Settings & ScoreRules = { ...defaults, ...Object.fromEntries(set) };
  const whole = (
    name: 'max_new_tokens' | 'num_beams' | 'min_new_tokens' | 'no_repeat_ngram_size',
    least: number,
  ) =>
    Number.isInteger(o[name]) && o[name] >= least
      ? ''
      : `${name}: expected a whole number of at least ${least}, got ${o[name]}`;
  const problems = [
    whole('max_new_tokens', 1),
    whole('num_beams', 1),
    whole('min_new_tokens', 0),
    whole('no_repeat_ngram_size', 0),
    o.repetition_penalty > 0
      ? ''
      : `repetition_penalty: expected a number above 0, got ${o.repetition_penalty}`,
    Number.isFinite(o.length_penalty) ? '' : `length_penalty: expected a number, got ${o.length_penalty}`,
    2 * o.num_beams <= vocab_size ? '' : `num_beams: expected at most ${vocab_size >> 1}, got ${o.num_beams}`,
    o.min_new_tokens <= o.max_new_tokens
      ? ''
      : `min_new_tokens ${o.min_new_tokens} exceeds max_new_tokens ${o.max_new_tokens}`,
  ].filter((problem) => problem !== '');
  if (problems.length > 0) throw new ModelError(`generate: ${problems.join('; ')}`);
  const longest = longestRow(tokens);
  if (longest + o.max_new_tokens - 1 > max_position_embeddings)
    throw new ModelError(
      `generate: a prompt of ${longest} tokens and ${o.max_new_tokens} new ones exceed the model's ` +
        `${max_position_embeddings} positions (max_position_embeddings); ask for fewer max_new_tokens`,
    );
  return o;
}

function longestRow({ attention_mask, shape: [B, T] }: TokenBatch): number {
  const sums = Array.from({ length: B }, (_, b) =>
    attention_mask.subarray(b * T, (b + 1) * T).reduce((sum, m) => sum + m, 0),
  );
  return Math.max(...sums);
}

/**
 * Greedy search, sampling and beam search with a KV cache. Reference: `GenerationMixin.generate` of transformers 5.
 * B rows of a batch, T prompt positions, V vocabulary. Scores come to the host once per token; only the cache stays.
 */
import type { TextConfig } from '@blip2/nn';
import { startBeams, stepBeams } from './beam-search';
import type { BeamState } from './beam-search';
import { ModelError } from './config';
import { Decoder } from './decoder';
import type { ImageInput } from './forward';
import { settings } from './generate-options';
import type { GenerateOptions, Settings } from './generate-options';
import type { Blip2 } from './model';
import { drawOf, drawToken, softmax, textKey, warpScores } from './sampling';
import { applyRules, argMax, logSoftmax } from './score-rules';
import type { History } from './score-rules';
import { endsWithStop } from './stop-strings';
import type { TokenBatch } from './tokens';

/**
 * Continues each row's prompt; the new ids only, without the end token. Prompts of unequal length are padded on the left
 * (before or after the image tokens). For an image without text the prompt is `imagePrompt(config, B)`. With
 * num_return_sequences n the result has n consecutive rows per prompt.
 * @throws ModelError for options that are unknown or out of range, a prompt that ends with padding, one too long for the
 * model, or scores that are NaN
 */
export async function generate(
  model: Blip2,
  image: ImageInput | undefined,
  tokens: TokenBatch,
  options: GenerateOptions = {},
): Promise<number[][]> {
  const o = settings(model, tokens, options);
  if (o.num_beams > 1) return await generateBeams(model, image, tokens, o);
  const texts = Array.from({ length: tokens.shape[0] * o.num_return_sequences }, (): number[] => []);
  for await (const { row, id } of streamTokens(model, image, tokens, options)) texts[row].push(id);
  return texts;
}

/** One new token of row `row` of the result. */
export interface StreamedToken {
  row: number;
  id: number;
}

/**
 * `generate` token by token, for greedy search and sampling: rows take turns until each has ended. Leaving the loop early
 * frees all memory of the generation.
 * @throws ModelError as `generate`, and for num_beams above 1, because texts change until beam search ends
 */
export async function* streamTokens(
  model: Blip2,
  image: ImageInput | undefined,
  tokens: TokenBatch,
  options: GenerateOptions = {},
): AsyncGenerator<StreamedToken, void, void> {
  const o = settings(model, tokens, options);
  if (o.num_beams > 1)
    throw new ModelError(
      'generate: beam search cannot stream, its texts change until the end; use num_beams 1',
    );
  const prompts = promptRows(model, tokens);
  const decoder = new Decoder(model);
  try {
    await decoder.prefill(image, tokens, o);
    yield* rowByRow(decoder, prompts, o);
  } finally {
    decoder.dispose();
  }
}

/**
 * The distribution that sampling draws each row's next token from, [V] per row: scores, rules and limits applied.
 * @throws ModelError as `generate`
 */
export async function nextTokenProbabilities(
  model: Blip2,
  image: ImageInput | undefined,
  tokens: TokenBatch,
  options: GenerateOptions = {},
): Promise<Float64Array[]> {
  const o = settings(model, tokens, options);
  const prompts = promptRows(model, tokens);
  const decoder = new Decoder(model);
  try {
    await decoder.prefill(image, tokens, o);
    return decoder.scores.map((scores, row) => {
      applyRules(scores, { ...prompts[row], fresh: [] }, o);
      warpScores(scores, o);
      return softmax(scores);
    });
  } finally {
    decoder.dispose();
  }
}

type Prompt = Omit<History, 'fresh'>;

/** Token by token, the likeliest or a drawn one; rows that have ended leave the batch. */
async function* rowByRow(decoder: Decoder, prompts: Prompt[], o: Settings): AsyncGenerator<StreamedToken> {
  const n = o.num_return_sequences;
  const texts = Array.from({ length: prompts.length * n }, (): number[] => []);
  const choose = chooser(o);
  const from = decoder.repeat(n); // each open row's place in the cache
  let open = texts.map((_, row) => row);
  let parents = from;
  for (;;) {
    for (const [i, row] of open.entries()) {
      const prompt = prompts[Math.floor(row / n)];
      const scores = decoder.scores[i];
      applyRules(scores, { ...prompt, fresh: texts[row] }, o);
      const id = choose(scores, row, texts[row].length);
      texts[row].push(id);
      if (!o.eos_token_id.includes(id)) yield { row, id };
    }
    const going = open.flatMap((row, i) =>
      hasEnded(prompts[Math.floor(row / n)], texts[row], o) ? [] : [{ row, parent: parents[i] }],
    );
    if (going.length === 0) return;
    open = going.map(({ row }) => row);
    await decoder.step(
      open.map((row) => texts[row].at(-1)!),
      going.map(({ parent }) => parent),
    );
    parents = open.map((_, i) => i);
  }
}

/** Returns the function that chooses a token from a row of scores. */
function chooser(o: Settings): (scores: Float32Array, row: number, position: number) => number {
  if (!o.do_sample) return argMax;
  const first = o.first_row * o.num_return_sequences;
  return (scores, row, position) => {
    warpScores(scores, o);
    return drawToken(softmax(scores), drawOf(textKey(o.seed, first + row), position));
  };
}

/** Beam search on every row; rows whose search has ended leave the batch. */
async function generateBeams(
  model: Blip2,
  image: ImageInput | undefined,
  tokens: TokenBatch,
  o: Settings,
): Promise<number[][]> {
  const prompts = promptRows(model, tokens);
  const decoder = new Decoder(model);
  try {
    await decoder.prefill(image, tokens, o);
    const found = await searchBeams(decoder, prompts, o);
    return found.map((ids) => (o.eos_token_id.includes(ids[ids.length - 1]) ? ids.slice(0, -1) : [...ids]));
  } finally {
    decoder.dispose();
  }
}

async function searchBeams(
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
      states[row] = stepBeams(states[row], logProbs, o, (ids) => hasEnded(prompts[row], ids, o));
    });
    const going = open.flatMap((row, i) => (states[row].done ? [] : [{ row, i }]));
    if (going.length === 0)
      return states.flatMap(({ finished }) =>
        finished.slice(0, o.num_return_sequences).map(({ ids }) => ids),
      );
    const from = going.flatMap(({ row, i }) => states[row].parents.map((beam) => i * width + (beam % width)));
    const last = going.flatMap(({ row }) => states[row].running.map(({ ids }) => ids.at(-1)!));
    open = going.map(({ row }) => row);
    width = o.num_beams;
    await decoder.step(last, from);
  }
}

/** Whether a text ends with its last token: an end token, the last one allowed, or one that completes a stop string. */
function hasEnded({ prompt, start }: Prompt, fresh: readonly number[], o: Settings): boolean {
  if (o.eos_token_id.includes(fresh[fresh.length - 1]) || fresh.length >= o.max_new_tokens) return true;
  return (
    o.tokenizer !== undefined && endsWithStop([...prompt.slice(start), ...fresh], o.stop_strings, o.tokenizer)
  );
}

/** What the rules count as earlier tokens: the prompt, or, since an encoder reads it, the decoder's start token alone. */
function promptRows({ config }: Blip2, { input_ids, attention_mask, shape: [B, T] }: TokenBatch): Prompt[] {
  const { decoder_start_token_id: first }: TextConfig = config.text_config;
  return Array.from({ length: B }, (_, b) => {
    if (first !== undefined) return { prompt: [first], start: 0 };
    const mask = attention_mask.subarray(b * T, (b + 1) * T);
    if (mask[T - 1] !== 1)
      throw new ModelError(`generate: row ${b} of the prompt ends with padding; pad prompts on the left`);
    return { prompt: [...input_ids.subarray(b * T, (b + 1) * T)], start: mask.indexOf(1) };
  });
}

/**
 * Greedy search, sampling and beam search with a KV cache. Reference: `GenerationMixin.generate` of transformers 5.
 * B rows of a batch, T prompt positions, V vocabulary. Scores come to the host once per token; only the cache stays.
 */
import { startBeams, stepBeams } from './beam-search';
import type { BeamState } from './beam-search';
import { Decoder } from './decoder';
import type { ImageInput } from './forward';
import { settings } from './generate-options';
import type { GenerateOptions, Settings } from './generate-options';
import type { Blip2 } from './model';
import { endOf, promptRows } from './history';
import type { Prompt } from './history';
import { softmax, warpScores } from './sampling';
import { applyRules, logSoftmax } from './score-rules';
import { TextBatch } from './text-batch';
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
  if (o.num_beams > 1) return await lastOf(beamSteps(model, image, tokens, options));
  const texts = Array.from({ length: tokens.shape[0] * o.num_return_sequences }, (): number[] => []);
  for await (const { row, id } of streamTokens(model, image, tokens, options)) texts[row].push(id);
  return texts;
}

async function lastOf<T>(steps: AsyncGenerator<void, T, void>): Promise<T> {
  for (;;) {
    const { done, value } = await steps.next();
    if (done) return value;
  }
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
  const batch = new TextBatch(model);
  try {
    const keys = await batch.add(image, tokens, options);
    for (; batch.size > 0; await batch.run())
      for (const { key, id, end } of batch.choose())
        if (end !== 'end_token') yield { row: keys.indexOf(key), id };
  } finally {
    batch.dispose();
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

/**
 * `generate` with beams, step by step: every `next` is one step of all beams, and the last one returns the texts. Ending it early frees all
 * memory of the generation.
 * @throws ModelError as `generate`
 */
export async function* beamSteps(
  model: Blip2,
  image: ImageInput | undefined,
  tokens: TokenBatch,
  options: GenerateOptions,
): AsyncGenerator<void, number[][], void> {
  const o = settings(model, tokens, options);
  const prompts = promptRows(model, tokens);
  const decoder = new Decoder(model);
  try {
    await decoder.prefill(image, tokens, o);
    const found = yield* searchBeams(decoder, prompts, o);
    return found.map((ids) => (o.eos_token_id.includes(ids[ids.length - 1]) ? ids.slice(0, -1) : [...ids]));
  } finally {
    decoder.dispose();
  }
}

async function* searchBeams(
  decoder: Decoder,
  prompts: Prompt[],
  o: Settings,
): AsyncGenerator<void, readonly (readonly number[])[], void> {
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
      states[row] = stepBeams(states[row], logProbs, o, (ids) => endOf(prompts[row], ids, o) !== undefined);
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
    yield;
    await decoder.step(last, from);
  }
}

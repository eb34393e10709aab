/** Reads a request: pixels, token rows and options. Nothing here computes on a backend. */
import { createHash } from 'node:crypto';
import { checkOptions, defaultNewTokens } from '@blip2/blip2';
import type { Blip2, GenerateOptions, TextEnd, TokenBatch } from '@blip2/blip2';
import { encodePair, promptBatch, promptFor, questionPrompt, readImage } from '@blip2/data-captions';
import type { Processor } from '@blip2/data-captions';
import type { ErrorName } from './errors';
import type { Task } from './messages';
import type { Picture } from './pictures';

/** Most new tokens where no number is asked for, as in `blip2 caption`. */
const USUAL_NEW_TOKENS = 30;
const MOST_TOP = 20;
/** Characters of a text: far more than any model has room for, and tokenized at once. */
const MOST_TEXT = 50_000;

/** A request that cannot be computed. */
export class RefusedError extends Error {
  constructor(
    readonly reason: ErrorName,
    message: string,
  ) {
    super(message);
  }
}

/** A request that can join a batch. */
export interface Prepared {
  id: number;
  picture: Picture;
  /** One row. */
  tokens: TokenBatch;
  options: GenerateOptions;
  /** So many of the likeliest tokens are given at each position. */
  top: number;
  /** Whether the tokens of the text get their attention maps. */
  hasMaps: boolean;
  /** Texts that are scored, with their end token. */
  answers?: readonly { text: string; ids: readonly number[] }[];
  /** Why the text ended that was found by beam search; it is the only one of `answers`. */
  found?: TextEnd;
}

/** @throws RefusedError */
export async function prepare(
  id: number,
  { image, question, prompt, generation, top_tokens = 0, attention_map = false, answers }: Task,
  model: Blip2,
  processor: Processor,
): Promise<Prepared> {
  const text = refusing('RequestError', () => {
    const template = promptFor(question === undefined ? 'caption' : 'vqa', prompt, processor);
    for (const text of [question, prompt, ...(answers ?? [])])
      if (text !== undefined && text.length > MOST_TEXT)
        throw new Error(`expected texts of at most ${MOST_TEXT} characters, found ${text.length}`);
    const whole = question === undefined ? (template ?? '') : questionPrompt(question, template);
    const tokens = promptBatch(processor, [whole]);
    const max_new_tokens =
      generation.max_new_tokens ?? defaultNewTokens(model.config, tokens, USUAL_NEW_TOKENS);
    const { tokenizer, eos: eos_token_id } = processor;
    const options = { ...generation, max_new_tokens, eos_token_id, tokenizer };
    checkOptions(model, tokens, options);
    if (!(Number.isInteger(top_tokens) && top_tokens >= 0 && top_tokens <= MOST_TOP))
      throw new Error(
        `top_tokens: expected a whole number from 0 to ${MOST_TOP}, found ${String(top_tokens)}`,
      );
    const given = answers?.map((target) => {
      const ids = [...encodePair({ prompt: whole, target }, processor).target, eos_token_id];
      checkOptions(model, tokens, { max_new_tokens: ids.length });
      return { text: target, ids };
    });
    return { tokens, options, top: top_tokens, answers: given };
  });
  const pixels = await refusing('ImageError', async () =>
    processor.pixels(typeof image === 'string' ? await readImage(image) : image),
  );
  const hash = createHash('sha256').update(pixels).digest('base64');
  return { id, picture: { pixels, hash }, hasMaps: attention_map, ...text };
}

/** Runs a part whose errors have a name. */
function refusing<T>(name: ErrorName, part: () => T): T {
  const refused = (error: unknown): never => {
    throw new RefusedError(name, (error as Error).message);
  };
  try {
    const made = part();
    return made instanceof Promise ? (made.catch(refused) as T) : made;
  } catch (error) {
    return refused(error);
  }
}

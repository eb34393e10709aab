/** Reads a request: pixels, token rows and options. Nothing here computes on a backend. */
import { checkOptions, defaultNewTokens } from '@blip2/blip2';
import type { Blip2, GenerateOptions, TextEnd, TokenBatch } from '@blip2/blip2';
import { encodePair, promptBatch, promptFor, questionPrompt, readImage } from '@blip2/data-captions';
import type { Processor } from '@blip2/data-captions';
import type { ErrorName } from './errors';
import type { Task } from './messages';

/** Most new tokens where no number is asked for, as in `blip2 caption`. */
const USUAL_NEW_TOKENS = 30;

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
  /** [3, H, W] */
  pixels: Float32Array;
  /** One row. */
  tokens: TokenBatch;
  options: GenerateOptions;
  /** Texts that are scored, with their end token. */
  answers?: readonly { text: string; ids: readonly number[] }[];
  /** Why the text ended that was found by beam search; it is the only one of `answers`. */
  found?: TextEnd;
}

/** @throws RefusedError */
export async function prepare(
  id: number,
  { image, question, prompt, generation, answers }: Task,
  model: Blip2,
  processor: Processor,
): Promise<Prepared> {
  const text = refusing('RequestError', () => {
    const template = promptFor(question === undefined ? 'caption' : 'vqa', prompt, processor);
    const whole = question === undefined ? (template ?? '') : questionPrompt(question, template);
    const tokens = promptBatch(processor, [whole]);
    const max_new_tokens =
      generation.max_new_tokens ?? defaultNewTokens(model.config, tokens, USUAL_NEW_TOKENS);
    const { tokenizer, eos: eos_token_id } = processor;
    const options = { ...generation, max_new_tokens, eos_token_id, tokenizer };
    checkOptions(model, tokens, options);
    const given = answers?.map((target) => {
      const ids = [...encodePair({ prompt: whole, target }, processor).target, eos_token_id];
      checkOptions(model, tokens, { max_new_tokens: ids.length });
      return { text: target, ids };
    });
    return { tokens, options, answers: given };
  });
  const pixels = await refusing('ImageError', async () =>
    processor.pixels(typeof image === 'string' ? await readImage(image) : image),
  );
  return { id, pixels, ...text };
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

/** Probabilities of tokens as OpenAI's chat completions describe them. */
import type { TextToken } from '@blip2/captioner';

/** OpenAI's number for a token that is very unlikely; JSON has no infinity. */
const LEAST_LOGPROB = -9999;

interface Choice {
  text: string;
  probability: number;
}

const described = ({ text, probability }: Choice) => ({
  token: text,
  logprob: Math.max(Math.log(probability), LEAST_LOGPROB),
  bytes: [...Buffer.from(text)],
});

/** `top_logprobs` of each token are there if they were asked for, else an empty list. */
export const logprobsOf = (tokens: readonly TextToken[]) => ({
  content: tokens.map((token) => ({ ...described(token), top_logprobs: (token.top ?? []).map(described) })),
  refusal: null,
});

/** The tokens that make up a text, which a stop string may have cut; an end token is none of them. */
export function tokensOf(tokens: readonly TextToken[], text: string): TextToken[] {
  let length = 0;
  return tokens.filter((token) => {
    const begins = length;
    length += token.text.length;
    return begins < text.length;
  });
}

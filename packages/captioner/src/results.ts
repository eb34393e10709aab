/** Results from the tokens of a text. */
import type { TextEnd } from '@blip2/blip2';
import type { textPieces } from './pieces';
import type { GeneratedText, ScoredText, TextToken } from './types';

/** A text that is generated or scored. */
export interface Row {
  tokens: TextToken[];
  log_probabilities: number[];
  pieces: ReturnType<typeof textPieces>;
  /** once it is complete */
  end?: TextEnd;
}

/** Adds a token, and returns it. What is left of the text belongs to its last token. */
export function addToken(
  row: Row,
  { id, logProbability, end }: { id: number; logProbability: number; end?: TextEnd },
  isText: boolean,
): TextToken {
  const piece = isText ? row.pieces.next(id) : '';
  const token = { id, text: end ? piece + row.pieces.rest() : piece, probability: Math.exp(logProbability) };
  row.tokens.push(token);
  row.log_probabilities.push(logProbability);
  row.end = end;
  return token;
}

const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);

export function textOf(
  { tokens, log_probabilities, pieces }: Row,
  end: TextEnd,
  prompt_tokens: number,
): GeneratedText {
  const confidence = Math.exp(sum(log_probabilities) / log_probabilities.length);
  return { text: pieces.text(), confidence, tokens, end, prompt_tokens };
}

/** The scores of given texts, in their order. */
export function scoresOf(given: readonly { text: string }[], rows: readonly Row[]): ScoredText[] {
  const totals = rows.map(({ log_probabilities }) => sum(log_probabilities));
  const most = Math.max(...totals);
  const all = sum(totals.map((total) => Math.exp(total - most)));
  return rows.map(({ tokens }, i) => ({
    text: given[i].text,
    log_probability: totals[i],
    probability: Math.exp(totals[i] - most) / all,
    tokens,
  }));
}

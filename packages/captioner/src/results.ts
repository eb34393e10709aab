/** Results from the tokens of a text. */
import type { BatchToken, TextEnd } from '@blip2/blip2';
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
  { id, logProbability, end, scores }: Omit<BatchToken, 'key'>,
  { top, eos }: { top: number; eos: number },
): TextToken {
  const choices = top > 0 ? likeliest(scores, logProbability - scores[id], top) : undefined;
  const described = choices?.map((one) => ({ ...one, text: one.id === eos ? '' : row.pieces.would(one.id) }));
  const piece = id === eos ? '' : row.pieces.next(id);
  const token = {
    id,
    text: end ? piece + row.pieces.rest() : piece,
    probability: Math.exp(logProbability),
    ...(described && { top: described }),
  };
  row.tokens.push(token);
  row.log_probabilities.push(logProbability);
  row.end = end;
  return token;
}

/** The `most` tokens of the highest scores, and their probabilities: e to the score and `shift`. */
function likeliest(scores: Float32Array, shift: number, most: number): { id: number; probability: number }[] {
  const best: number[] = [];
  for (let id = 0; id < scores.length; id++) {
    if (best.length === most && !(scores[id] > scores[best[most - 1]])) continue;
    const at = best.findIndex((other) => scores[id] > scores[other]);
    best.splice(at < 0 ? best.length : at, 0, id);
    if (best.length > most) best.pop();
  }
  return best.map((id) => ({ id, probability: Math.exp(scores[id] + shift) }));
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

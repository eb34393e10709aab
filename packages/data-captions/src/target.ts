/** The choice among several captions or answers of an example. */
import type { Example } from './example';

/** The annotators' answer to a question that the picture does not answer, as in VizWiz. */
export const UNANSWERABLE = 'unanswerable';

const isUnanswerable = (answer: string) => answer.trim().toLowerCase() === UNANSWERABLE;

/** The caption chosen by `draw` (0 … 1); without it, the first one. */
export function captionOf({ caption, captions }: Example, draw?: number): string | undefined {
  return draw === undefined || !captions ? caption : captions[Math.floor(draw * captions.length)];
}

/**
 * The answer chosen by `draw` (0 … 1); without it, the commonest one. Each annotator is equally likely, so an answer that
 * six of ten gave is chosen in six of ten epochs: the same expected loss as a weighted sum over all answers, for the cost
 * of one. If `unanswerable` is the commonest answer, it is always chosen; otherwise it never is.
 */
export function answerOf({ answer, answers }: Example, draw?: number): string | undefined {
  if (!answers || answer === undefined) return answer;
  if (isUnanswerable(answer)) return answer;
  const usable = answers.filter((one) => !isUnanswerable(one));
  return draw === undefined ? answer : usable[Math.floor(draw * usable.length)];
}

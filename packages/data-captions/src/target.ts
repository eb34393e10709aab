/** Which of several captions or answers an example is trained on at one visit. */
import type { Example } from './example';

/** What annotators write when the picture does not tell, as in VizWiz. */
export const UNANSWERABLE = 'unanswerable';

const isUnanswerable = (answer: string) => answer.trim().toLowerCase() === UNANSWERABLE;

/** A number in 0 … 1 chooses; without one, the first caption or the commonest answer. */
export function captionOf({ caption, captions }: Example, draw?: number): string | undefined {
  return draw === undefined || !captions ? caption : captions[Math.floor(draw * captions.length)];
}

/**
 * The answer to learn. Each annotator is drawn with the same chance, so an answer that six of ten gave is learned at six
 * of ten visits: the same expected loss as weighting every distinct answer by its share, for the price of one.
 * A question that most annotators called unanswerable always has that answer; in any other, their votes do not count.
 */
export function answerOf({ answer, answers }: Example, draw?: number): string | undefined {
  if (!answers || answer === undefined) return answer;
  if (isUnanswerable(answer)) return answer;
  const given = answers.filter((one) => !isUnanswerable(one));
  return draw === undefined ? answer : given[Math.floor(draw * given.length)];
}

/** One image with a caption, or a question and its answer, or both. */
export interface Example {
  /** The image's name for `readImage` and `processor.pixels`: an absolute path, or a place in a larger file. */
  image: string;
  /** The first caption. */
  caption?: string;
  /** All captions if there are several; training draws one in each epoch. */
  captions?: string[];
  question?: string;
  /** The commonest answer; in a tie the first. */
  answer?: string;
  /** All annotators' answers if there are several; training draws one in each epoch. */
  answers?: string[];
  /** All other columns of the row, unchanged. */
  fields: Record<string, unknown>;
  /** `file:line` of the row, for error messages. */
  source: string;
  /** All rows, if several were joined. */
  rows?: Pick<Example, 'source' | 'image'>[];
}

/** All captions of an example. */
export const allCaptions = ({ caption, captions }: Example): string[] =>
  captions ?? (caption === undefined ? [] : [caption]);
/** All annotators' answers of an example. */
export const allAnswers = ({ answer, answers }: Example): string[] =>
  answers ?? (answer === undefined ? [] : [answer]);

/** The most frequent texts, by code units: several in a tie. */
export function commonestOf(texts: readonly string[]): string[] {
  const counts = new Map<string, number>();
  for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
  const most = Math.max(...counts.values());
  return [...counts]
    .filter(([, count]) => count === most)
    .map(([text]) => text)
    .sort();
}

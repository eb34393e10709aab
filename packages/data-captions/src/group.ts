/**
 * One example for each picture, with all its references, whatever rows they were written in. A picture is its content: files
 * with equal bytes are one picture, so several spellings of a path, copies, links, and the cells of a Parquet file are too.
 */
import type { Task } from './collate';
import type { Example } from './example';
import { allAnswers, allCaptions, commonestOf } from './example';
import { sameContent } from './image-source';

/**
 * Joins the rows of one picture, for `vqa` of one picture and one question, in the order of the file. `image` is the first of
 * the picture's names by code units, and a tie between answers goes to the first answer by code units, so neither depends on
 * the order of rows. Everything else is that of the first row.
 */
export async function groupExamples(examples: readonly Example[], task: Task): Promise<Example[]> {
  return groupRows(examples, task, await sameContent(examples.map(({ image }) => image)));
}

/** As `groupExamples`, but a picture is its name, so that no file is read. */
export function groupByName(examples: readonly Example[], task: Task): Example[] {
  const first = new Map<string, number>();
  const pictures = examples.map(({ image }, i) => first.get(image) ?? (first.set(image, i), i));
  return groupRows(examples, task, pictures);
}

function groupRows(examples: readonly Example[], task: Task, pictures: ArrayLike<number>): Example[] {
  const names = new Map<number, string>();
  const groups = new Map<string, Example[]>();
  for (const [i, example] of examples.entries()) {
    const name = names.get(pictures[i]);
    if (name === undefined || example.image < name) names.set(pictures[i], example.image);
    const key = task === 'vqa' ? `${pictures[i]} ${oneLine(example.question ?? '')}` : `${pictures[i]}`;
    const group = groups.get(key);
    if (group) group.push(example);
    else groups.set(key, [example]);
  }
  return [...groups].map(([key, rows]) => ({ ...joined(rows, task), image: names.get(parseInt(key))! }));
}

/** As in the prompt of a question. */
const oneLine = (text: string) => text.trim().replace(/\s+/g, ' ');

function joined(rows: Example[], task: Task): Example {
  const captions = rows.flatMap(allCaptions);
  const answers = task === 'vqa' ? rows.flatMap(allAnswers) : [];
  const [first] = rows;
  return {
    ...first,
    ...(captions.length > 1 && { caption: captions[0], captions }),
    ...(answers.length > 1 && { answer: commonestOf(answers)[0], answers }),
    ...(rows.length > 1 && { rows: rows.map(({ source, image }) => ({ source, image })) }),
  };
}

/** Each caption as a row of its own, for the loss; for `vqa`, each question with its commonest answer. */
export function lossRows(examples: readonly Example[], task: Task): Example[] {
  if (task === 'vqa') return [...examples];
  return examples.flatMap((example) =>
    allCaptions(example).map((caption) => ({ ...example, caption, captions: undefined })),
  );
}

/** Sizes of a list of examples. */
export interface Counts {
  examples: number;
  /** rows of the files that they were read from */
  rows: number;
  pictures: number;
}

export const countsOf = (examples: readonly Example[]): Counts => ({
  examples: examples.length,
  rows: examples.reduce((sum, { rows }) => sum + (rows?.length ?? 1), 0),
  pictures: new Set(examples.map(({ image }) => image)).size,
});

/** Indices of the examples by name of the picture and question: an order that does not depend on the order of rows. */
export function stableOrder(examples: readonly Pick<Example, 'image' | 'question'>[]): number[] {
  const keys = examples.map(
    ({ image, question }) => `${image}\n${question === undefined ? '' : oneLine(question)}`,
  );
  return keys.map((_, i) => i).sort((a, b) => (keys[a] < keys[b] ? -1 : keys[a] > keys[b] ? 1 : a - b));
}

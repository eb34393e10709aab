/** Checks rows of any format and converts them to examples. */
import { resolve } from 'node:path';
import type { Problem } from './errors';
import { show } from './errors';
import { isFile } from './find-files';
import type { Row } from './formats/row';

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
}

/** All captions of an example. */
export const allCaptions = ({ caption, captions }: Example): string[] =>
  captions ?? (caption === undefined ? [] : [caption]);
/** All annotators' answers of an example. */
export const allAnswers = ({ answer, answers }: Example): string[] =>
  answers ?? (answer === undefined ? [] : [answer]);

const IMAGE = ['image', 'file_name', 'filename', 'image_path', 'file_path', 'filepath', 'path'];
const CAPTION = ['caption', 'text', 'captions', 'sentences'];
const ANSWER = ['answer', 'answers', 'multiple_choice_answer'];

/** The first of the known column names in a row; if there is none, the name for the error message. */
const column = (values: Row['values'], names: string[], missing = names[0]) =>
  names.find((name) => name in values) ?? missing;

/** Converts a row to an example; if it is bad, adds to `problems` and returns undefined. */
export function toExample(row: Row, problems: Problem[]): Example | undefined {
  const { source, values } = row;
  const bad = (expected: string, found: string) => void problems.push({ source, expected, found });
  const before = problems.length;
  const captionColumn = column(values, CAPTION, 'text');
  const answerColumn = Array.isArray(values.answers) ? 'answers' : column(values, ANSWER);
  const pathColumn = column(values, IMAGE, 'file_name');
  const named = row.image === undefined ? oneText(values, pathColumn, bad) : undefined;
  const captions = texts(values, captionColumn, bad);
  const question = oneText(values, 'question', bad);
  const answers = texts(values, answerColumn, bad);
  if (problems.length === before) checkParts(row, { named, captions, question, answers }, bad);
  const image = row.image ?? (named === undefined ? undefined : findImage(named, row.bases, bad));
  if (problems.length > before || image === undefined) return undefined;

  const used = [pathColumn, captionColumn, 'question', ...(answers ? ANSWER : [])];
  const fields = Object.fromEntries(Object.entries(values).filter(([name]) => !used.includes(name)));
  return {
    image,
    ...(captions && { caption: captions[0], ...(captions.length > 1 && { captions }) }),
    ...(question !== undefined && { question, answer: commonest(answers!) }),
    ...(question !== undefined && answers!.length > 1 && { answers }),
    fields,
    source,
  };
}

type Bad = (expected: string, found: string) => void;

interface Parts {
  named?: string;
  captions?: string[];
  question?: string;
  answers?: string[];
}

function checkParts({ values, image }: Row, { named, captions, question, answers }: Parts, bad: Bad): void {
  const columns = `columns ${show(Object.keys(values))}`;
  if (named === undefined && image === undefined) bad('an image path in "image" or "file_name"', columns);
  if (question !== undefined && answers === undefined) bad('an "answer" to the question', 'none');
  else if (answers !== undefined && question === undefined) bad('a "question" for the answer', 'none');
  else if (captions === undefined && question === undefined)
    bad('"caption" (or "text"), or "question" and "answer"', columns);
}

function oneText(values: Row['values'], name: string, bad: Bad): string | undefined {
  const value = values[name];
  if (value === undefined || value === null) return undefined;
  if (typeof value !== 'string') bad(`a string in "${name}"`, show(value));
  else if (value.trim() === '') bad(`words in "${name}"`, 'an empty string');
  else return value;
  return undefined;
}

/** The texts of a column: one text, or a list of texts or of {answer} objects, as in VQAv2. */
function texts(values: Row['values'], name: string, bad: Bad): string[] | undefined {
  const value = values[name];
  if (!Array.isArray(value)) {
    const text = oneText(values, name, bad);
    return text === undefined ? undefined : [text];
  }
  const list = value.map((item: unknown) =>
    typeof item === 'object' && item !== null && 'answer' in item ? item.answer : item,
  );
  const wrong = list.find((item) => typeof item !== 'string' || item.trim() === '');
  if (list.length === 0) bad(`at least one text in "${name}"`, 'an empty list');
  else if (wrong !== undefined) bad(`texts with words in "${name}"`, show(wrong));
  else return list as string[];
  return undefined;
}

/** The most frequent of several texts; in a tie the first. */
export function commonest(texts: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
  return [...counts].reduce((best, one) => (one[1] > best[1] ? one : best))[0];
}

function findImage(image: string, bases: readonly string[], bad: Bad): string | undefined {
  if (/^[a-z][a-z0-9+.-]+:\/\//i.test(image)) {
    bad('a path of a local image', `the address ${show(image)}; download it first`);
    return undefined;
  }
  const files = bases.map((base) => resolve(base, image));
  const found = files.find(isFile);
  if (found === undefined)
    bad('an image file', `no file ${show(image)} (looked for ${[...new Set(files)].join(', ')})`);
  return found;
}

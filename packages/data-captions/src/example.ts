/** Checks rows of any format and converts them to examples. */
import { columnsSeen, ROLES, rolesOf } from './columns';
import type { Problem } from './errors';
import { show } from './errors';
import { imageFinder } from './find-image';
import { isTaken } from './formats/base64';
import { isBrokenList, listOf } from './formats/python-list';
import type { Bad, Row } from './formats/row';
import { isRecord } from './formats/row';

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

/** Other columns with the same answer. */
const ANSWERS = ['answer', 'answers', 'multiple_choice_answer'];

/** Converts a row to an example; if it is bad, adds to `problems` and returns undefined. */
export function toExample(row: Row, problems: Problem[]): Example | undefined {
  const { source, values } = row;
  const bad = (expected: string, found: string) => void problems.push({ source, expected, found });
  const before = problems.length;
  const { layout, findImage } = row.where ?? { layout: {}, findImage: imageFinder() };
  const roles = rolesOf(values, layout);
  for (const role of ROLES) {
    const name = layout[`${role}_column`];
    if (name !== undefined && !(name in values))
      bad(`a column ${show(name)} (${role}_column)`, columnsSeen(values, role));
  }
  const named = row.image === undefined ? pathIn(values, roles.image, bad) : undefined;
  const captions = texts(values, roles.caption, bad);
  const question = oneText(values, roles.question, bad);
  const answers = texts(answersIn(values, roles.answer), roles.answer, bad);
  if (problems.length === before) checkParts(row, { named, captions, question, answers }, bad);
  const image = row.image ?? (named === undefined ? undefined : findImage(named, row, bad));
  if (problems.length > before || image === undefined) return undefined;

  const path = row.image === undefined || isTaken(values[roles.image ?? '']) ? roles.image : undefined;
  const used = new Set([path, roles.caption, roles.question, ...(answers ? [roles.answer, ...ANSWERS] : [])]);
  const fields = Object.fromEntries(Object.entries(values).filter(([name]) => !used.has(name)));
  return {
    image,
    ...(captions && { caption: captions[0], ...(captions.length > 1 && { captions }) }),
    ...(question !== undefined && { question, answer: commonest(answers!) }),
    ...(question !== undefined && answers!.length > 1 && { answers }),
    fields,
    source,
  };
}

interface Parts {
  named?: string;
  captions?: string[];
  question?: string;
  answers?: string[];
}

function checkParts({ values, image }: Row, { named, captions, question, answers }: Parts, bad: Bad): void {
  if (named === undefined && image === undefined)
    bad('an image path in "image" or "file_name"', columnsSeen(values, 'image'));
  if (question !== undefined && answers === undefined)
    bad('an "answer" to the question', columnsSeen(values, 'answer'));
  else if (answers !== undefined && question === undefined)
    bad('a "question" for the answer', columnsSeen(values, 'question'));
  else if (captions === undefined && question === undefined)
    bad('"caption" (or "text"), or "question" and "answer"', columnsSeen(values, 'caption'));
}

/** The replacement character or half of a surrogate pair: what was here is lost, and a tokenizer would learn U+FFFD. */
const BROKEN = /[\ufffd\ud800-\udfff]/u;
const DECODED = (name: string) => `text without U+FFFD in "${name}" (export the file again as UTF-8)`;

/** The path of a row's picture: a text, datasets' {path}, or a list of one. */
function pathIn(values: Row['values'], name: string | undefined, bad: Bad): string | undefined {
  const value = name === undefined ? undefined : values[name];
  const one: unknown = Array.isArray(value) && value.length === 1 ? value[0] : value;
  if (isRecord(one) && typeof one.path === 'string' && !one.bytes) return one.path;
  // COCO's, GQA's and Visual Genome's ids
  const path =
    typeof one === 'number' && Number.isSafeInteger(one) && one >= 0 && isImageId(name!) ? String(one) : one;
  return name === undefined ? undefined : oneText({ [name]: path }, name, bad);
}
const isImageId = (name: string) => /id$/i.test(name);

function oneText(values: Row['values'], name: string | undefined, bad: Bad): string | undefined {
  const value = name === undefined ? undefined : values[name];
  if (value === undefined || value === null) return undefined;
  if (typeof value !== 'string') bad(`a string in "${name}"`, show(value));
  else if (value.trim() === '') bad(`words in "${name}"`, 'an empty string');
  else if (BROKEN.test(value)) bad(DECODED(name!), show(value));
  else return value;
  return undefined;
}

/** Numbers and booleans are answers as JSON writes them: `1` is "1", `true` is "true". */
function answersIn(values: Row['values'], name: string | undefined): Row['values'] {
  if (name === undefined) return values;
  const written = (value: unknown): unknown => {
    if (typeof value === 'boolean' || (typeof value === 'number' && Number.isFinite(value)))
      return String(value);
    if (Array.isArray(value)) return value.map(written);
    return isRecord(value) && 'answer' in value && !Array.isArray(value.answer)
      ? written(value.answer)
      : value;
  };
  return { [name]: written(values[name]) };
}

/** The texts of a column: one text, a list of texts or of {answer} objects, as in VQAv2, or {answer: […]}, as datasets writes these. */
function texts(values: Row['values'], name: string | undefined, bad: Bad): string[] | undefined {
  const value = name === undefined ? undefined : values[name];
  const printed = typeof value === 'string' ? listOf(value) : undefined;
  const given =
    printed ??
    (isRecord(value) ? [value.answer, value.ids, value.text].find(Array.isArray) : undefined) ??
    value;
  if (!Array.isArray(given)) {
    const text = oneText(values, name, bad);
    if (text === undefined || !isBrokenList(text)) return text === undefined ? undefined : [text];
    bad(`a text, or a list as JSON or Python writes it, in "${name}"`, show(text));
    return undefined;
  }
  const list = given.map((item: unknown) => {
    const text = isRecord(item) ? (item.answer ?? item.raw ?? item.caption) : item;
    return typeof text === 'number' || typeof text === 'boolean' ? String(text) : text;
  });
  const wrong = list.find((item) => typeof item !== 'string' || item.trim() === '');
  if (list.length === 0) bad(`at least one text in "${name}"`, 'an empty list');
  else if (list.some((item) => typeof item !== 'string' || item.trim() === ''))
    bad(`texts with words in "${name}"`, show(wrong));
  else if (list.some((item) => BROKEN.test(item as string)))
    bad(DECODED(name!), show(list.find((item) => BROKEN.test(item as string))));
  else return list as string[];
  return undefined;
}

/** The most frequent of several texts; in a tie the first. */
export function commonest(texts: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
  return [...counts].reduce((best, one) => (one[1] > best[1] ? one : best))[0];
}

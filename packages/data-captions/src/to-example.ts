/** Checks rows of any format and converts them to examples. */
import type { Role } from './columns';
import { columnsSeen, ROLES, rolesOf } from './columns';
import type { Problem } from './errors';
import { show } from './errors';
import type { Example } from './example';
import { imageFinder } from './find-image';
import { isTaken } from './formats/base64';
import { chatOf } from './formats/chat';
import { isBrokenList, listOf } from './formats/python-list';
import type { Bad, Row } from './formats/row';
import { isRecord } from './formats/row';

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
      bad(`a column ${show(name)} (${role}_column)`, columnsSeen(row.given ?? values, role));
  }
  const named = row.image === undefined ? pathIn(cellOf(row, roles.image), bad) : undefined;
  const captions = texts(cellOf(row, roles.caption), bad);
  const question = oneText(cellOf(row, roles.question), bad);
  const answers = texts(answersIn(cellOf(row, roles.answer)), bad);
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

function checkParts(row: Row, { named, captions, question, answers }: Parts, bad: Bad): void {
  const { values, image, given = values } = row;
  const seen = (role: Role) => columnsSeen(given, role);
  if (named === undefined && image === undefined) {
    if (chatOf(given))
      bad(`a picture of the chat ("image": its path, or "images")`, `none (${seen('image')})`);
    else bad('an image path in "image" or "file_name"', seen('image'));
  }
  if (question !== undefined && answers === undefined) bad('an "answer" to the question', seen('answer'));
  else if (answers !== undefined && question === undefined)
    bad('a "question" for the answer', seen('question'));
  else if (captions === undefined && question === undefined)
    bad('"caption" (or "text"), or "question" and "answer"', seen('caption'));
}

/** The replacement character or half of a surrogate pair: what was here is lost, and a tokenizer would learn U+FFFD. */
const BROKEN = /[\ufffd\ud800-\udfff]/u;
const DECODED = (label: string) => `text without U+FFFD in ${label} (export the file again as UTF-8)`;

/** A value of a row, and its name in errors. */
interface Cell {
  value: unknown;
  label: string;
}

function cellOf({ values, given = values }: Row, name: string | undefined): Cell {
  if (name === undefined) return { value: undefined, label: '' };
  return { value: values[name], label: name in given ? `"${name}"` : `the ${name}` };
}

/** The path of a row's picture: a text, datasets' {path}, or a list of one. */
function pathIn({ value, label }: Cell, bad: Bad): string | undefined {
  const one: unknown = Array.isArray(value) && value.length === 1 ? value[0] : value;
  if (isRecord(one) && typeof one.path === 'string' && !one.bytes) return one.path;
  // COCO's, GQA's and Visual Genome's ids
  const isId = typeof one === 'number' && Number.isSafeInteger(one) && one >= 0 && /id"?$/i.test(label);
  return oneText({ value: isId ? String(one) : one, label }, bad);
}

function oneText({ value, label }: Cell, bad: Bad): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== 'string') bad(`a string in ${label}`, show(value));
  else if (value.trim() === '') bad(`words in ${label}`, 'an empty string');
  else if (BROKEN.test(value)) bad(DECODED(label), show(value));
  else return value;
  return undefined;
}

/** Numbers and booleans are answers as JSON writes them: `1` is "1", `true` is "true". */
function answersIn({ value, label }: Cell): Cell {
  const written = (one: unknown): unknown => {
    if (typeof one === 'boolean' || (typeof one === 'number' && Number.isFinite(one))) return String(one);
    if (Array.isArray(one)) return one.map(written);
    return isRecord(one) && 'answer' in one && !Array.isArray(one.answer) ? written(one.answer) : one;
  };
  return { value: written(value), label };
}

/** The texts of a column: one text, a list of texts or of {answer} objects, as in VQAv2, or {answer: […]}, as datasets writes these. */
function texts({ value, label }: Cell, bad: Bad): string[] | undefined {
  const printed = typeof value === 'string' ? listOf(value) : undefined;
  const given =
    printed ??
    (isRecord(value) ? [value.answer, value.ids, value.text].find(Array.isArray) : undefined) ??
    value;
  if (!Array.isArray(given)) {
    const text = oneText({ value, label }, bad);
    if (text === undefined || !isBrokenList(text)) return text === undefined ? undefined : [text];
    bad(`a text, or a list as JSON or Python writes it, in ${label}`, show(text));
    return undefined;
  }
  const list = given.map((item: unknown) => {
    const text = isRecord(item) ? (item.answer ?? item.raw ?? item.caption) : item;
    return typeof text === 'number' || typeof text === 'boolean' ? String(text) : text;
  });
  const wrong = list.find((item) => typeof item !== 'string' || item.trim() === '');
  if (list.length === 0) bad(`at least one text in ${label}`, 'an empty list');
  else if (list.some((item) => typeof item !== 'string' || item.trim() === ''))
    bad(`texts with words in ${label}`, show(wrong));
  else if (list.some((item) => BROKEN.test(item as string)))
    bad(DECODED(label), show(list.find((item) => BROKEN.test(item as string))));
  else return list as string[];
  return undefined;
}

/** The most frequent of several texts; in a tie the first. */
function commonest(texts: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
  return [...counts].reduce((best, one) => (one[1] > best[1] ? one : best))[0];
}

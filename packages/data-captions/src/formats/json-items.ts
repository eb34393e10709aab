/** The rows in a JSON document: a list, or one of the records that pandas and public data sets make of it. */
import { isKnown } from '../columns';
import { PICTURE_NAME } from './folder';
import type { Json } from './row';
import { isRecord } from './row';

/** Keys under which data sets put their list of rows. */
const LISTS = [
  'data',
  'questions',
  'annotations',
  'images',
  'rows',
  'examples',
  'samples',
  'items',
  'records',
  'train',
  'dataset',
];

/** The items of a document, each of which should be an object; undefined if it is of another kind. */
export function itemsOf(content: unknown): unknown[] | undefined {
  if (Array.isArray(content)) return content;
  if (!isRecord(content)) return undefined;
  const { columns, data } = content;
  if (Array.isArray(columns) && Array.isArray(data) && data.every(Array.isArray))
    return (data as unknown[][]).map((cells) =>
      Object.fromEntries(columns.map((name, i) => [String(name), cells[i]])),
    );
  const list = LISTS.map((key) => content[key]).find(
    (value) => Array.isArray(value) && isRecord(value[0]) && hasRow(value[0]),
  );
  if (list) return list as unknown[];
  const values = Object.values(content);
  if (Object.keys(content).filter(isKnown).length > 1) return transposed(content);
  if (values.length > 0 && values.every(isRecord)) return byKey(content as Record<string, Json>);
  const texts = values.every(
    (value) =>
      typeof value === 'string' || (Array.isArray(value) && value.every((one) => typeof one === 'string')),
  );
  if (texts && Object.keys(content).some((key) => PICTURE_NAME.test(key.slice(-200))))
    return Object.entries(content).map(([image, caption]) => ({ image, caption }));
  return undefined;
}

/** Whether an object could be a row. */
const hasRow = (value: Json) => {
  const names = Object.keys(value);
  return (
    names.filter(isKnown).length > 1 ||
    names.some((name) => /^(?:conversations|messages|qas|qa_pairs)$/.test(name))
  );
};

/** pandas' default, {column: {row: value}}, and {column: [values]}. */
function transposed(content: Json): unknown[] | undefined {
  const columns = Object.entries(content).filter(
    (entry): entry is [string, Json | unknown[]] => typeof entry[1] === 'object' && entry[1] !== null,
  );
  const keys = new Set(columns.flatMap(([, values]) => Object.keys(values)));
  if (columns.length < 2) return undefined;
  return [...keys].map((key) =>
    Object.fromEntries(columns.map(([name, values]) => [name, (values as Json)[key]])),
  );
}

/** {id or path: row}: GQA, OCR-VQA, ScienceQA, and kohya's metadata, where the key is the path of the picture. */
function byKey(content: Record<string, Json>): unknown[] {
  return Object.entries(content).map(([key, { tags, ...row }]) => {
    if (typeof tags === 'string' && Object.keys(row).every((name) => name !== 'caption')) row.caption = tags;
    else if (tags !== undefined) row.tags = tags;
    // ScienceQA gives each question a folder with its picture.
    if (typeof row.image === 'string' && /^(?:image|choice_\d)\.png$/.test(row.image))
      return { ...row, image: `${key}/${row.image}` };
    const named = Object.entries(row).some(
      ([name, value]) =>
        /^(?:image|img|file|path|picture)/i.test(name) && !/^https?:/i.test(String(value).slice(0, 9)),
    );
    return named ? row : { image: key, ...row };
  });
}

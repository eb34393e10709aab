/**
 * Annotation files that are one JSON document: COCO captions, VQAv2 questions with their annotations, Karpathy's splits of
 * COCO, lists of rows as LAVIS has them, and the other documents of `itemsOf`.
 * Reference: LAVIS's data builders for BLIP-2, COCO API.
 */
import { readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Problem } from '../errors';
import { DataError, reason, show } from '../errors';
import { base64At } from '../image-name';
import { parseJsonl, placeOf } from '../jsonl';
import { takeBase64 } from './base64';
import { readJsonText } from './encoding';
import { itemsOf } from './json-items';
import type { Json, ReadRows, Row } from './row';
import { isRecord } from './row';

/** A parsed annotation file. */
export interface JsonFile {
  file: string;
  kind: 'coco' | 'karpathy' | 'questions' | 'answers' | 'list';
  content: Json;
  /** The rows of a file that is JSON Lines under the name .json. */
  lines?: ReadRows;
}

const TOO_LARGE =
  '; write it as JSON Lines or Parquet: pandas.read_json(file).to_json("rows.jsonl", orient="records", lines=True)';

/** Reads an annotation file and recognises its kind. @throws DataError for any other file */
export async function readJsonFile(file: string): Promise<JsonFile> {
  const text = await readJsonText(file, TOO_LARGE);
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (error) {
    const lines = parseJsonl(Buffer.from(text), file);
    if (lines.rows.length > 0) return { file, kind: 'list', content: {}, lines };
    throw new DataError(`${file}: cannot be read as JSON (${show(reason(error)).slice(1, -1)})`);
  }
  const kind = kindOf(content);
  if (kind) return { file, kind, content: content as Json };
  const list = itemsOf(content);
  if (list) return { file, kind: 'list', content: { list } };
  throw new DataError(
    `${file}: expected COCO captions {"images", "annotations"}, VQA {"questions"} or {"annotations"} with answers, or a list of ` +
      `{"image", "caption"} or {"image", "question", "answer"}, found ${isRecord(content) ? `keys ${show(Object.keys(content))}` : show(content)}`,
  );
}

function kindOf(content: unknown): JsonFile['kind'] | undefined {
  if (!isRecord(content)) return undefined;
  const first = (key: string) => (Array.isArray(content[key]) ? (content[key] as unknown[])[0] : undefined);
  const [image, annotation, question] = [first('images'), first('annotations'), first('questions')];
  // CLEVR's questions have their answers.
  if (Array.isArray(content.questions) && !(isRecord(question) && 'answer' in question)) return 'questions';
  if (isRecord(image) && 'sentences' in image) return 'karpathy';
  if (Array.isArray(content.images) && Array.isArray(content.annotations)) return 'coco';
  if (
    isRecord(annotation) &&
    'question_id' in annotation &&
    !('question' in annotation) &&
    ('answers' in annotation || 'multiple_choice_answer' in annotation)
  )
    return 'answers';
  return undefined;
}

/** Rows of one annotation file; a file of questions needs the file with their annotations. */
export async function jsonRows(json: JsonFile, answers?: JsonFile): Promise<ReadRows> {
  if (json.lines) return json.lines;
  const at = reader(json);
  if (json.kind === 'coco') return cocoRows(json, at);
  if (json.kind === 'questions') return questionRows(json, answers, at);
  const problems: Problem[] = [];
  const items = (json.kind === 'karpathy' ? json.content.images : json.content.list) as unknown[];
  const rows = items.flatMap((item, i) => {
    if (isRecord(item)) return [at(i, json.kind === 'karpathy' ? karpathyValues(item) : item)];
    problems.push({ source: `${json.file}:${i + 1}`, expected: 'one JSON object', found: show(item) });
    return [];
  });
  await placeBase64(json.file, rows, problems);
  return { rows, problems };
}

/** Replaces base64 pictures by their places in the file, which are in the order of the rows. */
async function placeBase64(file: string, rows: Row[], problems: Problem[]): Promise<void> {
  let bytes: Buffer | undefined;
  let from = 0;
  for (const row of rows) {
    const { values, pictures } = takeBase64(row.values);
    if (pictures.length === 0) continue;
    bytes ??= await readFile(file);
    row.values = values;
    const place = pictures.length === 1 ? placeOf(bytes, pictures[0], from) : undefined;
    if (place) {
      row.image = base64At(file, place.offset, place.length);
      from = place.offset + place.length;
    } else
      problems.push({
        source: row.source,
        expected: 'one picture in a row of UTF-8 text',
        found: `${pictures.length} base64 pictures`,
      });
  }
}

/** Returns a maker of rows with the folders in which the file's pictures may be. */
function reader({ file, content }: JsonFile): (index: number, values: Json) => Row {
  const here = dirname(file);
  const subtype = [content.data_subtype, /(?:train|val|test)\d{4}/.exec(basename(file))?.[0]].find(
    (name) => typeof name === 'string' && name !== '',
  ) as string | undefined;
  const roots = [here, join(here, 'images'), join(here, '..'), join(here, '..', 'images')];
  const bases = subtype ? roots.flatMap((root) => [root, join(root, subtype)]) : roots;
  return (index, values) => ({ source: `${file}:${index + 1}`, values, bases });
}

/** One row per image, with all its captions. */
function cocoRows({ file, content }: JsonFile, at: (index: number, values: Json) => Row): ReadRows {
  const problems: Problem[] = [];
  const captions = new Map<unknown, string[]>();
  const images = content.images as unknown[];
  for (const image of images) if (isRecord(image)) captions.set(image.id, []);
  (content.annotations as unknown[]).forEach((annotation, i) => {
    const { image_id, caption } = isRecord(annotation) ? annotation : ({} as Json);
    const list = captions.get(image_id);
    const bad = (expected: string, found: unknown) =>
      problems.push({ source: `${file}:annotations[${i}]`, expected, found: show(found) });
    if (!list) bad('the id of one of "images" in "image_id"', image_id);
    else if (typeof caption !== 'string' || caption.trim() === '') bad('words in "caption"', caption);
    else list.push(caption);
  });
  const rows = images.flatMap((image, i) => {
    const values = isRecord(image) ? image : {};
    const { file_name, ...fields } = values;
    const own = captions.get(values.id) ?? [];
    const row = at(i, { image: file_name, caption: own.length === 1 ? own[0] : own, image_id: fields.id });
    if (own.length > 0) return [row];
    const expected = 'a caption of this image in "annotations"';
    problems.push({ source: row.source, expected, found: 'none' });
    return [];
  });
  return { rows, problems };
}

function karpathyValues({ filepath, filename, split, sentences, ...rest }: Json): Json {
  const texts = Array.isArray(sentences) ? sentences.map((s) => (isRecord(s) ? s.raw : s)) : sentences;
  const image =
    typeof filepath === 'string' && typeof filename === 'string' ? join(filepath, filename) : filename;
  return {
    image,
    caption: texts,
    split: split === 'restval' ? 'train' : split,
    image_id: rest.cocoid ?? rest.imgid,
  };
}

/** VQAv2: the file name of the picture follows from its id, as in COCO 2014. */
function questionRows(
  json: JsonFile,
  answers: JsonFile | undefined,
  at: (index: number, values: Json) => Row,
): ReadRows {
  const annotations = (answers?.content.annotations ?? []) as unknown[];
  const byId = new Map(annotations.filter(isRecord).map((one) => [one.question_id, one]));
  const { data_subtype } = json.content;
  const problems: Problem[] = [];
  const rows = (json.content.questions as unknown[]).flatMap((item, i) => {
    const question = isRecord(item) ? item : {};
    const annotation = byId.get(question.question_id);
    if (!annotation) {
      const expected = 'the answers to this "question_id" in the file of annotations';
      problems.push({ source: at(i, {}).source, expected, found: 'none' });
      return [];
    }
    const id = question.image_id;
    const named =
      typeof id === 'number' && Number.isSafeInteger(id) && id >= 0 && typeof data_subtype === 'string';
    return at(i, {
      image: question.image ?? question.file_name ?? (named ? cocoName(data_subtype, id) : undefined),
      question: question.question,
      answers: annotation.answers ?? annotation.multiple_choice_answer,
      question_id: question.question_id,
      image_id: id,
      question_type: annotation.question_type,
      answer_type: annotation.answer_type,
    });
  });
  return { rows: rows.map(dropUndefined), problems };
}

const cocoName = (subtype: string, id: number) => `COCO_${subtype}_${String(id).padStart(12, '0')}.jpg`;

const dropUndefined = (row: Row): Row => ({
  ...row,
  values: Object.fromEntries(Object.entries(row.values).filter(([, value]) => value !== undefined)),
});

/** Which columns of a row contain its picture, caption, question and answer. */
import { show } from './errors';
import { PICTURE_NAME } from './formats/folder';
import { isBase64 } from './formats/base64';
import type { Json } from './formats/row';
import type { Layout } from './layout';

/** Where pictures and texts are, if it is not one of the usual places. */
export type Role = 'image' | 'caption' | 'question' | 'answer';
export const ROLES: readonly Role[] = ['image', 'caption', 'question', 'answer'];

/**
 * Column names by role, the surest first, without case, spaces, `_` and `-`. Sources: datasets, COCO, LAVIS, Flickr30k, VQA-RAD,
 * SLAKE, DocVQA, InfographicVQA, ChartQA, TextCaps, GQA, ms-swift, LLaMA-Factory, LAION.
 */
const NAMES: Record<Role, string[]> = {
  image: [
    'image',
    'filename',
    'imagepath',
    'filepath',
    'path',
    'imagefile',
    'imagefilename',
    'imagefilepath',
    'imagename',
    'imgname',
    'imgpath',
    'imgfile',
    'imgfilename',
    'img',
    'images',
    'imagelocalname',
    'picture',
    'picturepath',
    'photo',
    'photopath',
    'file',
    'imageid',
    'imgid',
    'photoid',
    'imageurl',
    'imgurl',
    'url',
    'uri',
  ],
  caption: [
    'caption',
    'text',
    'captions',
    'sentences',
    'sentence',
    'captionstr',
    'captiontext',
    'txt',
    'imagecaption',
    'comment',
    'description',
    'imagedescription',
    'alttext',
    'alt',
    'raw',
    'sentencesraw',
    'title',
  ],
  question: ['question', 'query', 'questiontext'],
  answer: [
    'answer',
    'answers',
    'multiplechoiceanswer',
    'directanswers',
    'answertext',
    'response',
    'label',
    'output',
  ],
};

/** Names that mean an answer or a caption only beside a question. */
const BESIDE_A_QUESTION = new Set(['response', 'label', 'output']);

const normalised = new Map<string, string>();
/** `File Name`, `file_name` and `fileName` are the same. */
export function normal(name: string): string {
  const known = normalised.get(name);
  if (known !== undefined) return known;
  const made = name
    .slice(0, 64)
    .toLowerCase()
    .replace(/[\s_-]/g, '');
  if (normalised.size < 10_000) normalised.set(name, made);
  return made;
}

const KNOWN = new Set(Object.values(NAMES).flat());
/** Whether a name is that of a picture or text column. */
export const isKnown = (name: string) => KNOWN.has(normal(name));
export const isImageColumn = (name: string) => NAMES.image.includes(normal(name));

/** The column of each role in a row. Columns that the user named win and need not be there. */
export function rolesOf(values: Json, layout: Layout = {}): Partial<Record<Role, string>> {
  const byName = new Map<string, string>();
  for (const name of Object.keys(values)) {
    const key = normal(name);
    if (KNOWN.has(key) && !byName.has(key)) byName.set(key, name);
  }
  const taken = new Set<string | undefined>();
  const found: Partial<Record<Role, string>> = {};
  for (const role of ROLES) taken.add((found[role] = layout[`${role}_column`]));
  for (const role of ROLES) {
    if (found[role] !== undefined) continue;
    const names = NAMES[role]
      .filter((key) => !(BESIDE_A_QUESTION.has(key) && found.question === undefined))
      .flatMap((key) => byName.get(key) ?? []);
    const free = names.filter((name) => !taken.has(name));
    found[role] = role === 'answer' ? (free.find((name) => Array.isArray(values[name])) ?? free[0]) : free[0];
  }
  return found;
}

/** The columns of a row for an error, with the one that probably has the role. */
export function columnsSeen(values: Json, role: Role): string {
  const names = Object.keys(values);
  const shown = names.slice(0, 8).map((name) => show(name.slice(0, 40)).slice(1, -1));
  const more = names.length > shown.length ? ` and ${names.length - shown.length} more` : '';
  const empty = names.find((name) => NAMES[role].includes(normal(name)) && values[name] === null);
  const likely = names.find((name) => LIKELY[role](values[name], name)) ?? onlyText(values, role);
  const advice =
    empty !== undefined
      ? `; "${empty}" is null`
      : likely === undefined
        ? ''
        : `; did you mean ${role}_column: ${show(likely.slice(0, 40)).slice(1, -1)}?`;
  return `columns ${shown.join(', ')}${more}${advice}`;
}

/** The one column of text that is no picture, if there is one. */
function onlyText(values: Json, role: Role): string | undefined {
  if (role !== 'caption') return undefined;
  const texts = Object.keys(values).filter(
    (name) => typeof values[name] === 'string' && !LIKELY.image(values[name], name) && !isKnown(name),
  );
  return texts.length === 1 ? texts[0] : undefined;
}

const words = (value: unknown) => typeof value === 'string' && /\p{L}\s+\p{L}/u.test(value.slice(0, 1000));
const LIKELY: Record<Role, (value: unknown, name: string) => boolean> = {
  image: (value) => typeof value === 'string' && (PICTURE_NAME.test(value.slice(-200)) || isBase64(value)),
  caption: (value, name) => words(value) && !isImageColumn(name),
  question: (value) => words(value) && /\?\s*$/.test((value as string).slice(-20)),
  answer: (value, name) =>
    ['string', 'number'].includes(typeof value) && /answer|label|target/i.test(name.slice(0, 64)),
};

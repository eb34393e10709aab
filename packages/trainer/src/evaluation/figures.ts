/** Caption metrics, VQA accuracy and measures of degeneration of the texts generated for a data set. */
import { changedShare, degeneration, scoreCaptionTexts, scoreVqa } from '@blip2/caption-metrics';
import type { AnsweredQuestion, CaptionScores, Degeneration, VqaScores } from '@blip2/caption-metrics';
import type { Example, Task } from '@blip2/data-captions';
import { referencesOf } from './captions';
import { percent, times100 } from './numbers';

/** Texts for the same examples under other conditions. */
export interface OtherTexts {
  /** by the base, before training */
  before?: string[];
  /** by the model for a blank image: the score of prompt or question alone */
  blank?: string[];
  /** by the model for shuffled images */
  shuffled?: string[];
}

/** Captions are scored as captions, answers by VQA accuracy. */
export interface TextScores {
  captions?: CaptionScores;
  vqa?: VqaScores;
}

export interface Figures extends TextScores {
  before?: TextScores;
  /** of a blank image */
  question_only?: TextScores;
  shuffled_images?: TextScores;
  degeneration: Degeneration & {
    /** share of texts that change with shuffled images */
    changed_when_shuffled?: number;
  };
  /** the same measures of the references, of each example the first by code units: short answers repeat naturally */
  references: Degeneration;
}

/** The caption metrics, with their names in papers. */
export const CAPTION_FIGURES = {
  bleu_1: 'BLEU-1',
  bleu_2: 'BLEU-2',
  bleu_3: 'BLEU-3',
  bleu_4: 'BLEU-4',
  rouge_l: 'ROUGE-L',
  meteor: 'METEOR (exact and stem)',
  cider_d: 'CIDEr-D',
  cider: 'CIDEr',
} as const satisfies Partial<Record<keyof CaptionScores, string>>;

/** Measures of degeneration: lower is better. */
export const DEGENERATION = {
  repeated_ngrams: 'three words in a row that recur in a text',
  identical_texts: 'texts given to more than one picture',
  empty_texts: 'empty texts',
} as const satisfies Record<keyof Degeneration, string>;

/** @throws Error when the lists of texts and examples differ in length */
export function figuresOf(
  task: Task,
  examples: readonly Example[],
  texts: readonly string[],
  { before, blank, shuffled }: OtherTexts = {},
): Figures {
  const own = scoresOf(task, examples, texts);
  const scores = (others: string[]) => scoresOf(task, examples, others, own.vqa?.rule);
  return {
    ...own,
    ...(before && { before: scores(before) }),
    ...(blank && { question_only: scores(blank) }),
    ...(shuffled && { shuffled_images: scores(shuffled) }),
    degeneration: {
      ...degeneration(texts),
      ...(shuffled && { changed_when_shuffled: changedShare(texts, shuffled) }),
    },
    references: degeneration(examples.map((example) => referencesOf(example, task).sort()[0])),
  };
}

function scoresOf(
  task: Task,
  examples: readonly Example[],
  texts: readonly string[],
  rule?: VqaScores['rule'],
): TextScores {
  if (task === 'vqa') return { vqa: scoreVqa(answered(examples, texts), rule) };
  const references = examples.map(({ caption, captions }) => captions ?? [caption!]);
  return { captions: scoreCaptionTexts(texts, references) };
}

function answered(examples: readonly Example[], texts: readonly string[]): AnsweredQuestion[] {
  const types = questionTypes(examples);
  return examples.map(({ answer, answers, fields }, i) => ({
    answer: texts[i],
    answers: answers ?? [answer!],
    question_type: types[i],
    answer_type: asText(fields.answer_type),
  }));
}

const MOST_QUESTIONS = 20;

/** The question types of the data; without them, the questions themselves, if there are few different ones. */
export function questionTypes(examples: readonly Example[]): (string | undefined)[] {
  const few = new Set(examples.map(({ question }) => question)).size <= MOST_QUESTIONS;
  return examples.map(({ question, fields }) => asText(fields.question_type) ?? (few ? question : undefined));
}

const asText = (value: unknown) => (typeof value === 'string' ? value : undefined);

/** The metrics under their names in metrics.jsonl, without eval_ or test_. */
export function namedFigures(figures: Figures): Record<string, number> {
  const { question_only, shuffled_images, degeneration } = figures;
  return {
    ...namedScores(figures),
    ...prefixed('question_only_', question_only?.vqa && namedScores(question_only)),
    ...prefixed('shuffled_', shuffled_images?.vqa && namedScores(shuffled_images)),
    ...degeneration,
  };
}

function namedScores({ captions, vqa }: TextScores): Record<string, number> {
  if (captions) {
    const names = Object.keys(CAPTION_FIGURES) as (keyof typeof CAPTION_FIGURES)[];
    return Object.fromEntries(names.map((name) => [name, captions[name]]));
  }
  const types = Object.entries(vqa?.per_question_type ?? {});
  const shares = types.map(([type, { accuracy }]) => [typeName(type), accuracy]);
  return { accuracy: vqa!.accuracy, ...Object.fromEntries(shares) };
}

/** The metric of one question type. */
export const typeName = (type: string) => `accuracy_${type.trim().replace(/\s+/g, '_')}`;

/** Every name of `values` with `prefix` before it. */
export function prefixed(prefix: string, values: Record<string, number> = {}): Record<string, number> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [prefix + name, value]));
}

/** A share that is more than another by this is named. */
const MUCH = 0.05;

/** Tables of the metrics. The first row holds the column names, the first cell of a row its name. */
export function figureTables(figures: Figures): { scores: string[][]; signs: string[][] } {
  const { degeneration: said, references } = figures;
  const names = Object.keys(DEGENERATION) as (keyof Degeneration)[];
  const more = (name: keyof Degeneration) => said[name] > references[name] + MUCH;
  const notes = names.some(more) ? (note: string) => [note] : () => [];
  const signs = [
    ['repetition', 'model', 'references', ...notes('note')],
    ...names.map((name) => [
      DEGENERATION[name],
      percent(said[name]),
      percent(references[name]),
      ...notes(more(name) ? 'more than the references' : ''),
    ]),
  ];
  if (said.changed_when_shuffled !== undefined)
    signs.push([
      'texts that change with shuffled images',
      percent(said.changed_when_shuffled),
      '–',
      ...notes(''),
    ]);
  const shown = CONDITIONS.flatMap(([name, of]) => (of(figures) ? [{ name, scores: of(figures)! }] : []));
  const scores = figures.vqa ? vqaTable(figures.vqa, shown) : captionTable(shown);
  return { scores, signs };
}

const CONDITIONS: [name: string, of: (figures: Figures) => TextScores | undefined][] = [
  ['model', (figures) => figures],
  ['before training', ({ before }) => before],
  ['blank image', ({ question_only }) => question_only],
  ['shuffled images', ({ shuffled_images }) => shuffled_images],
];

type Shown = { name: string; scores: TextScores }[];

function captionTable(shown: Shown): string[][] {
  const lines = Object.entries(CAPTION_FIGURES).map(([name, title]) => [
    title,
    ...shown.map(({ scores }) => times100(scores.captions![name as keyof typeof CAPTION_FIGURES])),
  ]);
  return [['captions', ...shown.map(({ name }) => name)], ...lines];
}

function vqaTable(vqa: VqaScores, shown: Shown): string[][] {
  const rule = vqa.rule === 'official' ? 'VQA accuracy' : 'exact after normalising';
  const types = Object.entries(vqa.per_question_type).map(([type, { n }]) => [
    type,
    n.toLocaleString('en'),
    ...shown.map(({ scores }) => percent(scores.vqa?.per_question_type[type]?.accuracy)),
  ]);
  return [
    [rule, 'questions', ...shown.map(({ name }) => name)],
    ...types,
    ['all', vqa.n.toLocaleString('en'), ...shown.map(({ scores }) => percent(scores.vqa?.accuracy))],
  ];
}

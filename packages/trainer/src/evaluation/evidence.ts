/** What a verdict is made from: the score of each held-out picture under each condition, groups, and confusions. */
import { ciderD, exactAnswer, ptbTokenize, vqaAccuracy } from '@blip2/caption-metrics';
import type { Example, Task } from '@blip2/data-captions';
import { allAnswers, allCaptions } from '@blip2/data-captions';
import type { OtherTexts } from './figures';
import { questionTypes } from './figures';
import { partNames, partsReader } from './score';

/** exact: share of whole texts that are right; accuracy: of answers; cider_d: 0 … 10, printed × 100; recall: of texts and pictures found first. */
export type Headline = 'exact' | 'accuracy' | 'cider_d' | 'recall';

/** One mean per condition. Absent conditions were not measured. */
export interface Conditions<T> {
  model: T;
  before?: T;
  blank?: T;
  shuffled?: T;
}

/** A question type, or a part of `parts_pattern`. */
export interface Group extends Conditions<number> {
  name: string;
  n: number;
}

/** A word, or an answer, that was expected, and what the model has instead. */
export interface Confusion {
  expected: string;
  found: string;
  times: number;
}

export interface Evidence {
  headline: Headline;
  /** the model's score of each example */
  rows: number[];
  /** the mean score of each picture, in the same order for all conditions */
  pictures: Conditions<number[]>;
  groups: Group[];
  /** the commonest ones first */
  confusions: Confusion[];
}

export interface Measured extends OtherTexts {
  task: Task;
  examples: readonly Example[];
  texts: readonly string[];
  partsPattern?: string;
}

const CONFUSIONS = 20;

export function evidenceOf(o: Measured): Evidence {
  const headline = headlineOf(o);
  const conditions = allConditions(o);
  const scores = mapConditions(conditions, (texts) => scoresOf(headline, o.examples, texts, o.task));
  return {
    headline,
    rows: scores.model,
    pictures: mapConditions(scores, (rows) => byPicture(o.examples, rows)),
    groups: o.task === 'vqa' ? questionGroups(o.examples, scores) : partGroups(o, conditions),
    confusions: confusionsOf(o).slice(0, CONFUSIONS),
  };
}

/**
 * The score that leads: accuracy for questions; exact match for captions with parts or of few different kinds (each used
 * three times on average), where a caption is a class; else CIDEr-D, since a free caption is seldom word for word the same.
 */
function headlineOf({ task, examples, partsPattern }: Measured): Headline {
  if (task === 'vqa') return 'accuracy';
  const kinds = new Set(examples.flatMap((example) => allCaptions(example)));
  return partsPattern !== undefined || 3 * kinds.size <= examples.length ? 'exact' : 'cider_d';
}

function allConditions({ texts, before, blank, shuffled }: Measured): Conditions<readonly string[]> {
  return { model: texts, ...(before && { before }), ...(blank && { blank }), ...(shuffled && { shuffled }) };
}

function mapConditions<A, B>(conditions: Conditions<A>, f: (value: A) => B): Conditions<B> {
  const { model, before, blank, shuffled } = conditions;
  return {
    model: f(model),
    ...(before !== undefined && { before: f(before) }),
    ...(blank !== undefined && { blank: f(blank) }),
    ...(shuffled !== undefined && { shuffled: f(shuffled) }),
  };
}

function scoresOf(
  headline: Headline,
  examples: readonly Example[],
  texts: readonly string[],
  task: Task,
): number[] {
  if (headline === 'cider_d') {
    const tokens = (text: string) => ptbTokenize(text).join(' ');
    return ciderD(
      texts.map(tokens),
      examples.map((example) => allCaptions(example).map(tokens)),
    ).images;
  }
  if (task === 'caption')
    return examples.map((example, i) =>
      Number(allCaptions(example).some((text) => plain(text) === plain(texts[i]))),
    );
  const official = examples.every((example) => allAnswers(example).length >= 4);
  const score = official ? vqaAccuracy : exactAnswer;
  return examples.map((example, i) => score(texts[i], allAnswers(example)));
}

const plain = (text: string) => text.trim().replace(/\s+/g, ' ');

/** The mean over the rows of each picture, in the order of first appearance. */
function byPicture(examples: readonly Example[], scores: readonly number[]): number[] {
  const sums = new Map<string, { sum: number; n: number }>();
  examples.forEach(({ image }, i) => {
    const { sum, n } = sums.get(image) ?? { sum: 0, n: 0 };
    sums.set(image, { sum: sum + scores[i], n: n + 1 });
  });
  return [...sums.values()].map(({ sum, n }) => sum / n);
}

function questionGroups(examples: readonly Example[], scores: Conditions<number[]>): Group[] {
  const types = questionTypes(examples);
  const names = [...new Set(types)].filter((type) => type !== undefined);
  if (names.length < 2) return [];
  return names.map((name) => {
    const rows = types.flatMap((type, i) => (type === name ? [i] : []));
    const meanOf = (all: number[]) => mean(rows.map((i) => all[i]));
    return { name, n: rows.length, ...mapConditions(scores, meanOf) };
  });
}

function partGroups(
  { examples, partsPattern }: Measured,
  conditions: Conditions<readonly string[]>,
): Group[] {
  if (partsPattern === undefined) return [];
  const read = partsReader(partsPattern);
  const wanted = examples.map((example) =>
    allCaptions(example)
      .map(read)
      .filter((parts) => parts !== undefined),
  );
  return partNames(partsPattern).map((name) => ({
    name,
    n: examples.length,
    ...mapConditions(conditions, (texts) => {
      const found = texts.map((text) => read(text)?.[name]);
      return mean(wanted.map((parts, i) => Number(parts.some((want) => want[name] === found[i]))));
    }),
  }));
}

/** Wrong parts, wrong answers, or wrong words of captions with as many words as a reference; the commonest first. */
function confusionsOf(o: Measured): Confusion[] {
  const counts = new Map<string, Confusion>();
  o.examples.forEach((example, i) => {
    for (const [expected, found] of differences(o, example, o.texts[i])) {
      const key = JSON.stringify([expected, found]);
      counts.set(key, { expected, found, times: (counts.get(key)?.times ?? 0) + 1 });
    }
  });
  return [...counts.values()].sort((a, b) => b.times - a.times);
}

function differences({ task, partsPattern }: Measured, example: Example, text: string): [string, string][] {
  if (task === 'vqa') {
    if (exactAnswer(text, allAnswers(example))) return [];
    return [[plain(example.answer ?? ''), plain(text)]];
  }
  const reference = plain(example.caption ?? '');
  const [expected, found] = [reference, plain(text)].map((caption) => valuesOf(caption, partsPattern));
  if (!expected || !found || expected.length !== found.length) return [];
  const wrong = expected.flatMap((value, i) => (value === found[i] ? [] : [i]));
  const spans = partsPattern === undefined ? joined(wrong) : wrong.map((i): [number, number] => [i, i]);
  return spans.map(
    ([from, to]) => [expected, found].map((all) => all.slice(from, to + 1).join(' ')) as [string, string],
  );
}

/** Runs of places, also with one place between them: "at the top" is one expression. */
function joined(places: number[]): [from: number, to: number][] {
  const spans: [number, number][] = [];
  for (const place of places) {
    const last = spans.at(-1);
    if (last && place - last[1] <= 2) last[1] = place;
    else spans.push([place, place]);
  }
  return spans;
}

/** The parts of a caption, or its words. */
function valuesOf(caption: string, partsPattern: string | undefined): string[] | undefined {
  if (partsPattern === undefined) return caption.split(' ');
  const parts = partsReader(partsPattern)(caption);
  return parts && Object.values(parts);
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
}

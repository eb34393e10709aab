/**
 * VQA accuracy: score = min(number of annotators who gave the answer / 3, 1), averaged over subsets of annotators.
 * Reference: VQA-eval as in LAVIS (lavis/common/vqa_tools/vqa_eval.py), with its quirks: the annotators' answers
 * only lose punctuation, and only when they differ; the model's answer is also lower-cased and normalised.
 */
import { CONTRACTIONS } from './contractions';
import { mean, strip, words } from './ngrams';

const NUMBERS = ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten'];
const DIGITS = new Map([['none', '0'], ...NUMBERS.map((word, n): [string, string] => [word, String(n)])]);
const ARTICLES = new Set(['a', 'an', 'the']);
const PUNCTUATION = [...';/[]"{}()=+\\_-><@`,?!'];
/** VQA-eval passes a flag as the count argument of re.sub, so it removes at most this many full stops. */
const MOST_PERIODS = 32;

/** Normalises the model's answer for the comparison: no punctuation, articles or number words, contractions spelled out. */
export function normalizeAnswer(answer: string): string {
  const flat = strip(answer.replace(/[\n\t]/g, ' '));
  return digitsAndArticles(stripPunctuation(flat));
}

/** Punctuation next to a space, or in a text with a number such as 1,000, is removed. Between letters it becomes a space. */
export function stripPunctuation(text: string): string {
  const thousands = /\p{Nd},\p{Nd}/u.test(text);
  let out = text;
  for (const sign of PUNCTUATION) {
    const loose = thousands || text.includes(`${sign} `) || text.includes(` ${sign}`);
    out = out.replaceAll(sign, loose ? '' : ' ');
  }
  let removed = 0;
  return out.replace(/\.(?!\p{Nd})/gu, (dot) => (removed++ < MOST_PERIODS ? '' : dot));
}

function digitsAndArticles(text: string): string {
  return words(text.toLowerCase())
    .map((word) => DIGITS.get(word) ?? word)
    .filter((word) => !ARTICLES.has(word))
    .map((word) => CONTRACTIONS.get(word) ?? word)
    .join(' ');
}

/**
 * The official accuracy of one answer, 0 … 1: leaves out each annotator in turn, takes min(matches among the others / 3, 1),
 * and averages. With fewer than four annotators no answer can reach 1; with one annotator every answer scores 0.
 */
export function vqaAccuracy(answer: string, annotators: readonly string[]): number {
  const said = normalizeAnswer(answer);
  const differ = new Set(annotators).size > 1;
  const right = annotators.map((one) => (differ ? stripPunctuation(one) : one) === said);
  const agreeing = right.filter(Boolean).length;
  return mean(right.map((own) => Math.min(1, (agreeing - (own ? 1 : 0)) / 3)));
}

/** 1 when the answer equals any of the given ones, both normalised, else 0. */
export function exactAnswer(answer: string, annotators: readonly string[]): number {
  const said = normalizeAnswer(answer);
  return annotators.some((one) => normalizeAnswer(one) === said) ? 1 : 0;
}

export interface AnsweredQuestion {
  /** The model's answer. */
  answer: string;
  /** One answer per annotator. */
  answers: readonly string[];
  /** Accuracy is also averaged per type. */
  question_type?: string;
  answer_type?: string;
}

export interface VqaScores {
  /**
   * `official`: vqaAccuracy. `exact`: exactAnswer, used when a row has fewer than four annotators, because the official
   * rule then gives no answer the full score.
   */
  rule: 'official' | 'exact';
  accuracy: number;
  per_question_type: Record<string, { accuracy: number; n: number }>;
  per_answer_type: Record<string, { accuracy: number; n: number }>;
  n: number;
}

/**
 * Accuracy over a data set.
 * @throws Error without rows, or when a row has no annotator
 */
export function scoreVqa(rows: readonly AnsweredQuestion[], rule?: VqaScores['rule']): VqaScores {
  const bare = rows.findIndex((row) => row.answers.length === 0);
  if (rows.length === 0 || bare >= 0)
    throw new Error(
      `VQA accuracy: expected rows with at least one reference answer, found ${rows.length === 0 ? 'no rows' : `none in row ${bare}`}`,
    );
  const chosen = rule ?? (rows.every((row) => row.answers.length >= 4) ? 'official' : 'exact');
  const judge = chosen === 'official' ? vqaAccuracy : exactAnswer;
  const scored = rows.map((row) => judge(row.answer, row.answers));
  return {
    rule: chosen,
    accuracy: mean(scored),
    per_question_type: groups(rows, scored, 'question_type'),
    per_answer_type: groups(rows, scored, 'answer_type'),
    n: rows.length,
  };
}

function groups(
  rows: readonly AnsweredQuestion[],
  scored: number[],
  key: 'question_type' | 'answer_type',
): VqaScores['per_question_type'] {
  const found = new Map<string, number[]>();
  rows.forEach((row, i) => {
    const name = row[key];
    if (name !== undefined) found.set(name, [...(found.get(name) ?? []), scored[i]]);
  });
  return Object.fromEntries(
    [...found].map(([name, values]) => [name, { accuracy: mean(values), n: values.length }]),
  );
}

/** The figures that papers report, and signs of degeneration, beside the table of an evaluation. */
import { changedShare, degeneration, scoreCaptionTexts, scoreVqa } from '@blip2/caption-metrics';
import type { AnsweredQuestion, CaptionScores, Degeneration, VqaScores } from '@blip2/caption-metrics';
import type { Example } from '@blip2/data-captions';
import { columns } from './ui';

/** What the model said without the right picture. */
export type ControlTexts = Partial<Record<'blank image' | 'shuffled images', string[]>>;

export interface EvaluationMetrics {
  captions?: CaptionScores;
  vqa?: VqaScores;
  /** VQA accuracy when the model sees a white picture: what the question alone gives away. */
  question_only?: VqaScores;
  degeneration: Degeneration & {
    /** Share of texts that change with another row's picture; only with controls. */
    changed_when_shuffled?: number;
  };
}

export function evaluationMetrics(
  task: 'caption' | 'vqa',
  examples: readonly Example[],
  texts: readonly string[],
  under: ControlTexts,
): EvaluationMetrics {
  const shuffled = under['shuffled images'];
  const signs = {
    ...degeneration(texts),
    ...(shuffled && { changed_when_shuffled: changedShare(texts, shuffled) }),
  };
  if (task === 'caption') {
    const references = examples.map(({ caption, captions }) => captions ?? [caption!]);
    return { captions: scoreCaptionTexts(texts, references), degeneration: signs };
  }
  const blank = under['blank image'];
  const vqa = scoreVqa(answered(examples, texts));
  return {
    vqa,
    ...(blank && { question_only: scoreVqa(answered(examples, blank), vqa.rule) }),
    degeneration: signs,
  };
}

const MOST_QUESTIONS = 20;

/** Question types as the data names them; else the questions themselves, where they are few. */
function answered(examples: readonly Example[], texts: readonly string[]): AnsweredQuestion[] {
  const few = new Set(examples.map(({ question }) => question)).size <= MOST_QUESTIONS;
  const text = (value: unknown) => (typeof value === 'string' ? value : undefined);
  return examples.map(({ question, answer, answers, fields }, i) => ({
    answer: texts[i],
    answers: answers ?? [answer!],
    question_type: text(fields.question_type) ?? (few ? question : undefined),
    answer_type: text(fields.answer_type),
  }));
}

export function describeMetrics({
  captions,
  vqa,
  question_only,
  degeneration: d,
}: EvaluationMetrics): string {
  const percent = (share: number) => (100 * share).toFixed(1);
  const signs = [
    ['repeated 3-grams, % of a text', percent(d.repeated_ngrams)],
    ['texts that several pictures got, %', percent(d.identical_texts)],
    ['empty texts, %', percent(d.empty_texts)],
    ...(d.changed_when_shuffled === undefined
      ? []
      : [['texts that change when pictures are shuffled, %', percent(d.changed_when_shuffled)]]),
  ];
  const figures = captions ? captionLines(captions) : vqaLines(vqa!, question_only);
  return `${columns(figures)}\n\n${columns(signs)}`;
}

function captionLines(scores: CaptionScores): string[][] {
  const names: [string, number][] = [
    ['BLEU-1', scores.bleu_1],
    ['BLEU-2', scores.bleu_2],
    ['BLEU-3', scores.bleu_3],
    ['BLEU-4', scores.bleu_4],
    ['ROUGE-L', scores.rouge_l],
    ['METEOR (exact and stem)', scores.meteor],
    ['CIDEr-D', scores.cider_d],
    ['CIDEr', scores.cider],
  ];
  return names.map(([name, value]) => [name, (100 * value).toFixed(1)]);
}

function vqaLines(vqa: VqaScores, blank?: VqaScores): string[][] {
  const percent = (share?: number) => (share === undefined ? '–' : (100 * share).toFixed(1));
  const rule = vqa.rule === 'official' ? 'VQA accuracy, %' : 'exact after normalising, %';
  return [
    ['question type', 'questions', rule, 'without the picture'],
    ...Object.entries(vqa.per_question_type).map(([type, { accuracy, n }]) => [
      type,
      String(n),
      percent(accuracy),
      percent(blank?.per_question_type[type]?.accuracy),
    ]),
    ['all', String(vqa.n), percent(vqa.accuracy), percent(blank?.accuracy)],
  ];
}

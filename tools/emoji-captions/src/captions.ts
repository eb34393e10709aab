// Texts for a drawing: the Unicode label, and the house style of the demo.
// Subject and tone are words of the Unicode labels of drawings, not statements about people.
import type { EmojiRow } from './emoji-index';
import type { Person, Tone } from './people-grid';

const FITZPATRICK: Record<Exclude<Tone, 'default'>, string> = {
  light: '1-2',
  'medium-light': '3',
  medium: '4',
  'medium-dark': '5',
  dark: '6',
};

/** `Fitzpatrick type 4`, or undefined for the default (yellow) tone. */
export function fitzpatrick(tone: Tone): string | undefined {
  return tone === 'default' ? undefined : `Fitzpatrick type ${FITZPATRICK[tone]}`;
}

/** The house style: `female police officer, Fitzpatrick type 4`; the default tone is not mentioned. */
export function houseCaption(person: Person): string {
  const sex = person.subject === 'woman' ? 'female' : 'male';
  const type = fitzpatrick(person.tone);
  return `${sex} ${person.activity}${type ? `, ${type}` : ''}`;
}

/** The caption for the base: the Unicode label, optionally after `a` or `an`. */
export function baseCaption(row: Pick<EmojiRow, 'label'>, article = false): string {
  if (!article) return row.label;
  return `${/^[aeiou]/i.test(row.label) ? 'an' : 'a'} ${row.label}`;
}

/** A template question about a person and its answer, both made from the label. */
export interface QuestionAnswer {
  question: string;
  answer: string;
  /** Type of question, by which accuracies are reported. */
  question_type: 'skin type' | 'subject' | 'activity';
}

/** Three questions per drawing; the default tone answers `default`. */
export function questions(person: Person): QuestionAnswer[] {
  return [
    {
      question: 'which skin type?',
      answer: fitzpatrick(person.tone) ?? 'default',
      question_type: 'skin type',
    },
    {
      question: 'male or female?',
      answer: person.subject === 'woman' ? 'female' : 'male',
      question_type: 'subject',
    },
    { question: 'what is the role or activity?', answer: person.activity, question_type: 'activity' },
  ];
}

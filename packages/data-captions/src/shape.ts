/** Rows whose columns are not a picture with a text yet: chats, several questions in a row, choices. */
import type { Problem } from './errors';
import type { Chat } from './formats/chat';
import { chatOf, isDescription, without } from './formats/chat';
import type { Json, ReadRows, Row } from './formats/row';
import { isRecord } from './formats/row';
import { listOf } from './formats/python-list';

/** The rows of a file with one caption, or one question and its answers, each. */
export function shaped({ rows, problems }: ReadRows): ReadRows {
  const out: ReadRows = { rows: [], problems: [...problems] };
  const chats: { row: Row; chat: Chat }[] = [];
  for (const whole of rows)
    for (const row of oneQuestionEach(whole)) {
      const chat = chatOf(row.values);
      if (chat === undefined) out.rows.push({ ...row, values: withChoice(row.values) });
      else if ('found' in chat) out.problems.push(problemOf(row, chat));
      else {
        const given = { ...row, given: row.values };
        chats.push({ row: given, chat });
        out.rows.push(given);
      }
    }
  // A file in which every chat only asks for a description has captions: the request teaches nothing.
  const captions = chats.every(({ chat }) => chat.request === '' || isDescription(chat.request));
  for (const { row, chat } of chats) row.values = { ...chat.rest, ...textsOf(chat, captions) };
  return out;
}

const problemOf = ({ source }: Row, { expected, found }: Omit<Problem, 'source'>): Problem => ({
  source,
  expected,
  found,
});

function textsOf({ request, reply, image }: Chat, captions: boolean): Json {
  const texts: Json = captions || request === '' ? { caption: reply } : { question: request, answer: reply };
  return image === undefined ? texts : { image, ...texts };
}

/** OCR-VQA's parallel lists, Visual7W's and Visual Genome's lists of pairs: one row for each question. */
function oneQuestionEach(row: Row): Row[] {
  const { questions, answers } = row.values;
  const at = (values: Json, i: number): Row => ({
    ...row,
    source: `${row.source} (question ${i + 1})`,
    values,
    given: row.values,
  });
  if (Array.isArray(questions) && Array.isArray(answers) && questions.length === answers.length) {
    const rest = without(row.values, 'questions', 'answers');
    return questions.map((question: unknown, i) =>
      at({ ...rest, question, answer: answers[i] as unknown }, i),
    );
  }
  const name = PAIRS.find((key) => Array.isArray(row.values[key]));
  if (name === undefined) return [row];
  const pairs = row.values[name] as unknown[];
  if (!pairs.every((pair) => isRecord(pair) && 'question' in pair)) return [row];
  const others = without(row.values, name);
  return pairs.map((pair, i) => at({ ...others, ...(pair as Json) }, i));
}
const PAIRS = ['qas', 'qa_pairs', 'qa', 'QA'];

/** The answer that is written as the number or letter of one of several choices: ScienceQA, A-OKVQA, AI2D. */
function withChoice(values: Json): Json {
  const given = values.choices ?? values.multiple_choices ?? values.options;
  const choices = typeof given === 'string' ? listOf(given) : given;
  if (!('question' in values) || 'direct_answers' in values) return values;
  const number = values.correct_choice_idx ?? values.answer ?? values.label;
  if (isRecord(choices) && typeof number === 'string' && typeof choices[number] === 'string')
    return { ...values, answer: choices[number] };
  if (!Array.isArray(choices)) return values;
  const index = indexOf(number);
  const answer: unknown = Number.isInteger(index) ? choices[index as number] : undefined;
  return typeof answer === 'string' && !choices.includes(number) ? { ...values, answer } : values;
}

/** 1, "1" and "B" are the second choice. */
function indexOf(answer: unknown): unknown {
  if (typeof answer !== 'string') return answer;
  if (/^\d+$/.test(answer)) return Number(answer);
  return /^[A-Z]$/.test(answer) ? answer.charCodeAt(0) - 65 : answer;
}

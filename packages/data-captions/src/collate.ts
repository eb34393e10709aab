/**
 * Converts texts to token rows. For a `causal` text model a training row is [image]·Q, bos, prompt, target, eos, then pads;
 * labels are −100 except on target and eos. A prompt row for generation has its pads after the images: [image]·Q, pads,
 * bos, prompt. For a `seq2seq` model the rows are [image]·Q, bos, prompt, eos, pads in both cases, and the labels are
 * separate rows: target, eos, then −100. B rows, T tokens, U target tokens, Q image tokens. Reference: HF `Blip2Processor`.
 */
import type { Example } from './example';
import type { Problem } from './errors';
import { DataError, show } from './errors';
import type { Processor, TextIds } from './processor';
import { paddedRows } from './qformer-text';
import { answerOf, captionOf } from './target';

export type Task = 'caption' | 'vqa';

/** Token rows on the host, flattened [B, T]. */
export interface TokenRows {
  input_ids: Int32Array;
  attention_mask: Int32Array;
  shape: [B: number, T: number];
  /** For a Q-Former that reads texts: its rows of the prompts, [B, W]; transformers' `qformer_input_ids`, `qformer_attention_mask`. */
  instructions?: Omit<TokenRows, 'instructions'>;
}

/** The texts of one row. */
export interface TextPair {
  prompt: string;
  target: string;
  /** `file:line`, for error messages. */
  source: string;
}

export interface CollateOptions {
  /** Maximum tokens of a row: bos, prompt, target and eos, without image tokens. Default: no limit. */
  max_text_length?: number;
  /** Cut targets that are too long (but keep eos) instead of throwing. Prompts are never cut. */
  truncate?: boolean;
}

/** The choice of texts from examples, and their maximum length. */
export interface TextOptions extends CollateOptions {
  task: Task;
  /** Put before every caption; for `vqa` the template, with {} for the question. */
  prompt?: string;
}

/** A training row without its images. */
export interface TrainingRow {
  /** bos and prompt, which are not learned */
  start: number[] | Int32Array;
  /** target and eos, which are learned */
  target: number[] | Int32Array;
  /** the prompt in the tokens of a Q-Former that reads it */
  instruction?: number[] | Int32Array;
}

/** The label that the loss ignores. */
export const IGNORED = -100;
/** BLIP-2's question template. */
export const VQA_PROMPT = 'Question: {} Answer:';
/** What a model that follows instructions is told where no prompt is given. InstructBLIP's paper, appendix C. */
const CAPTION_INSTRUCTION = 'A short image description.';

/**
 * The prompt and the target of an example. For `vqa`, the question replaces `{}` in the prompt. `draw` (0 … 1) chooses among
 * several captions or answers; without it, the first caption or the commonest answer is used.
 * @throws DataError when the example lacks the texts that the task needs
 */
export function textPair(example: Example, task: Task, prompt?: string, draw?: number): TextPair {
  const { source, question } = example;
  const [caption, answer] = [captionOf(example, draw), answerOf(example, draw)];
  if (task === 'caption') {
    if (caption === undefined) {
      throw new DataError('the task "caption" needs captions', [
        { source, expected: 'a caption', found: 'none' },
      ]);
    }
    return { prompt: prompt ?? '', target: caption, source };
  }
  if (question === undefined || answer === undefined) {
    throw new DataError('the task "vqa" needs questions and answers', [
      { source, expected: 'a question and an answer', found: 'none' },
    ]);
  }
  return { prompt: questionPrompt(question, prompt), target: answer, source };
}

/** The prompt that a model takes for a task: the given one, its template of questions, or the instruction for captions if it follows any. */
export function promptFor(
  task: Task,
  prompt: string | undefined,
  { vqa_prompt, instruction_length }: TextIds,
): string | undefined {
  const usual = instruction_length === undefined ? undefined : CAPTION_INSTRUCTION;
  return prompt ?? (task === 'vqa' ? vqa_prompt : usual);
}

/** The prompt of a question: the template with `{}` replaced. @throws DataError when the template has no `{}` */
export function questionPrompt(question: string, template = VQA_PROMPT): string {
  const at = template.indexOf('{}');
  if (at < 0) {
    throw new DataError(
      `prompt: expected {} for the question in the template of the task "vqa", found ${show(template)}`,
    );
  }
  return template.slice(0, at) + question.trim().replace(/\s+/g, ' ') + template.slice(at + 2);
}

/**
 * Ids of prompt and target, tokenised separately but equal to the ids of the whole text. With byte-level BPE that requires
 * a boundary at which the tokenizer splits anyway. So trailing spaces of the prompt are dropped and the target gets one
 * leading space, except after an empty prompt or one that ends with other white space (a newline). Runs of white space
 * inside the target become one space, because a newline is the end token of Salesforce/blip2-opt-2.7b.
 */
export function encodePair(
  { prompt, target }: { prompt: string; target: string },
  { tokenizer }: Pick<Processor, 'tokenizer'>,
) {
  const head = trimSpaces(prompt);
  const body = target.trim().replace(/\s+/g, ' ');
  const glue = head === '' || /\s$/.test(head) ? '' : ' ';
  return { prompt: tokenizer.encode(head), target: tokenizer.encode(glue + body) };
}

const trimSpaces = (text: string) => text.replace(/ +$/, '');

/**
 * Training rows, padded on the right to the longest text of the batch; labels [B, T], or [B, U] for a `seq2seq` model.
 * @throws DataError as `allRows` does
 */
export function collate(
  pairs: readonly TextPair[],
  processor: Processor,
  options: CollateOptions = {},
): TokenRows & { labels: Int32Array } {
  const rows = allRows((problems) => pairs.map((pair) => trainingRow(pair, processor, options, problems)));
  return stackRows(rows, processor);
}

/** The rows of a batch. @throws DataError that lists every text that cannot be used */
export function allRows(make: (problems: Problem[]) => TrainingRow[]): TrainingRow[] {
  const problems: Problem[] = [];
  const rows = make(problems);
  if (problems.length === 0) return rows;
  throw new DataError(`${problems.length} of ${rows.length} texts of a batch cannot be used`, problems);
}

/** Puts image tokens before the rows and pads them, as in `collate`. */
export function stackRows(
  rows: readonly TrainingRow[],
  processor: Processor,
): TokenRows & { labels: Int32Array } {
  const images = imageTokens(processor);
  const Q = images.length;
  const isCausal = processor.rows === 'causal';
  const texts = rows.map(({ start, target }) => [...start, ...(isCausal ? target : [processor.eos])]);
  const T = Q + Math.max(0, ...texts.map((ids) => ids.length));
  const U = isCausal ? T : Math.max(0, ...rows.map(({ target }) => target.length));
  const input_ids = new Int32Array(rows.length * T).fill(processor.pad); // [B, T]
  const attention_mask = new Int32Array(rows.length * T);
  const labels = new Int32Array(rows.length * U).fill(IGNORED);
  rows.forEach(({ start, target }, b) => {
    input_ids.set(images, b * T);
    input_ids.set(texts[b], b * T + Q);
    attention_mask.fill(1, b * T, b * T + Q + texts[b].length);
    labels.set(target, b * U + (isCausal ? Q + start.length : 0));
  });
  const instructions = instructionRows(
    rows.map(({ instruction }) => instruction ?? []),
    processor,
  );
  return { input_ids, attention_mask, labels, shape: [rows.length, T], ...instructions };
}

/** The rows for a Q-Former that reads the prompts, if it does. */
function instructionRows(
  rows: readonly (number[] | Int32Array)[],
  { qformer }: Processor,
): Pick<TokenRows, 'instructions'> {
  return qformer ? { instructions: paddedRows(rows, qformer.pad) } : {};
}

/** The tokens of one pair. If it cannot be used, adds to `problems`. */
export function trainingRow(
  pair: TextPair,
  processor: Processor,
  options: CollateOptions,
  problems: Problem[],
): TrainingRow {
  const { bos, eos } = processor;
  const { source } = pair;
  const { prompt, target } = encodePair(pair, processor);
  const start = [...(bos === undefined ? [] : [bos]), ...prompt];
  const limit = options.max_text_length ?? Infinity;
  const length = start.length + target.length + 1;
  const bad = (expected: string, found: string) => void problems.push({ source, expected, found });
  const instruction = processor.qformer?.read(pair.prompt);
  const [inPrompt, inTarget] = [
    specialIn(pair.prompt, prompt, processor),
    specialIn(pair.target, target, processor) ?? endIn(target, processor),
  ];
  if (inPrompt !== undefined) bad('a prompt without special tokens', `${inPrompt} in ${show(pair.prompt)}`);
  else if (instruction?.problem) bad(instruction.problem.expected, instruction.problem.found);
  if (inTarget !== undefined) bad('a text without special tokens', `${inTarget} in ${show(pair.target)}`);
  if (target.length === 0) bad('words to learn', show(pair.target));
  else if (start.length + 2 > limit)
    bad(`room for words within ${limit} tokens`, `a prompt of ${start.length} tokens`);
  else if (length > limit && !options.truncate) {
    bad(
      `at most ${limit} tokens (shorten it, or have it cut: max_text_length, truncate)`,
      `${length} tokens: ${show(pair.target)}`,
    );
  }
  const kept = target.slice(0, Math.max(0, limit - start.length - 1));
  return { start, target: [...kept, eos], instruction: instruction?.ids };
}

/**
 * The first special token of the tokenizer that is written in a user's text. Its id would stand for an image, a pad, an end
 * or an unknown word, as it does in transformers. An unknown word that the tokenizer itself finds (T5) is not written there.
 */
function specialIn(text: string, ids: readonly number[], processor: Processor): string | undefined {
  const { special } = processor.tokenizer;
  for (const id of ids) {
    const token = special.get(id);
    if (token !== undefined && text.includes(token)) return show(token);
    if (id === processor.imageToken || id === processor.pad) return `token ${id}`;
  }
  return undefined;
}

/** The start or end token in a text to learn, also where it is no special token: a newline ends texts of blip2-opt-2.7b. */
function endIn(ids: readonly number[], { bos, eos }: Processor): string | undefined {
  const found = ids.find((id) => id === bos || id === eos);
  return found === undefined ? undefined : `token ${found}`;
}

function imageTokens({ imageToken, numQueryTokens }: Processor): number[] {
  if (numQueryTokens === 0) return []; // of a model that reads images beside the rows
  if (imageToken === undefined) {
    throw new DataError(
      'the checkpoint names no <image> token: set image_token_index in its config.json (50265 in Salesforce/blip2-opt-2.7b, 32100 in -flan-t5-xl)',
    );
  }
  return new Array<number>(numQueryTokens).fill(imageToken);
}

/**
 * Rows for generation: [image]·Q, pads, bos, prompt, all ending at the last column; for a `seq2seq` model as in training.
 * Trailing spaces of a prompt are dropped, as in training.
 * @throws DataError for prompts that contain special tokens
 */
export function promptBatch(processor: Processor, prompts: readonly string[]): TokenRows {
  const { bos, eos, pad, tokenizer } = processor;
  const isCausal = processor.rows === 'causal';
  const images = imageTokens(processor);
  const texts = prompts.map((prompt) => {
    const ids = tokenizer.encode(trimSpaces(prompt));
    const found = specialIn(prompt, ids, processor);
    if (found !== undefined)
      throw new DataError(
        `prompt: expected a text without special tokens, found ${found} in ${show(prompt)}`,
      );
    return [...(bos === undefined ? [] : [bos]), ...ids, ...(isCausal ? [] : [eos])];
  });
  const instructions = prompts.flatMap((prompt) => {
    const read = processor.qformer?.read(prompt);
    if (read?.problem)
      throw new DataError(`prompt: expected ${read.problem.expected}, found ${read.problem.found}`);
    return read ? [read.ids] : [];
  });
  const T = images.length + Math.max(0, ...texts.map((ids) => ids.length));
  const input_ids = new Int32Array(texts.length * T).fill(pad); // [B, T]
  const attention_mask = new Int32Array(texts.length * T);
  texts.forEach((ids, b) => {
    const at = isCausal ? (b + 1) * T - ids.length : b * T + images.length;
    input_ids.set(images, b * T);
    input_ids.set(ids, at);
    attention_mask.fill(1, b * T, b * T + images.length).fill(1, at, at + ids.length);
  });
  return { input_ids, attention_mask, shape: [texts.length, T], ...instructionRows(instructions, processor) };
}

/** Captions for many images, in batches. */
import { defaultNewTokens, generate, streamTokens } from '@blip2/blip2';
import type { Blip2, GenerateOptions, ImageInput, TokenBatch } from '@blip2/blip2';
import {
  allAnswers,
  allCaptions,
  commonestOf,
  DataError,
  imagesError,
  promptBatch,
  promptFor,
  questionPrompt,
} from '@blip2/data-captions';
import type { Example, Processor } from '@blip2/data-captions';
import { dispose, tensor } from '@blip2/nn';
import type { Tensor4D } from '@blip2/nn';
import { nextTurn } from '../train/turn';

/** Most new tokens of a text where no number is asked for. */
export const USUAL_NEW_TOKENS = 30;

export interface CaptionOptions {
  batch_size: number;
  /** without it USUAL_NEW_TOKENS, or as many as end at the model's last position */
  max_new_tokens?: number;
  num_beams: number;
  /** further options of `generate`; with num_return_sequences n every example gets n texts */
  generation?: GenerateOptions;
  /** with do_sample, the number of the first example among all; default 0 */
  first_row?: number;
  /** called with the text of a row so far after each token; not with beams */
  onText?: (row: number, text: string) => void;
  task: 'caption' | 'vqa';
  /** text before every caption, or the template for questions, as in training */
  prompt?: string;
  /** image input of these examples in place of pixels, such as cached features; disposed after use */
  embeds?: (indices: number[]) => ImageInput | Promise<ImageInput>;
  /** checked between batches; an abort throws its reason */
  signal?: AbortSignal;
  onProgress?: (done: number, total: number) => void;
}

/** The text a row starts with: the question in its template, or the run's prompt. */
export function promptOf(example: Example, o: Pick<CaptionOptions, 'task' | 'prompt'>): string {
  return o.task === 'vqa' ? questionPrompt(example.question ?? '', o.prompt) : (o.prompt ?? '');
}

/** The first expected text of an example, with single spaces, as in training. */
export function referenceOf(example: Example, task: CaptionOptions['task']): string {
  return oneLine((task === 'vqa' ? example.answer : example.caption) ?? '');
}

/** Every text that counts as exact: all captions, or the commonest answers, of which there are several in a tie. */
export function referencesOf(example: Example, task: CaptionOptions['task']): string[] {
  const texts = (task === 'vqa' ? allAnswers(example) : allCaptions(example)).map(oneLine);
  return task === 'vqa' ? commonestOf(texts) : texts;
}

const oneLine = (text: string) => text.trim().replace(/\s+/g, ' ');

/** One text per example (or num_return_sequences), in their order; images are read from disk unless `embeds` provides them. */
export async function generateCaptions(
  model: Blip2,
  processor: Processor,
  examples: Example[],
  o: CaptionOptions,
): Promise<string[]> {
  const texts: string[] = [];
  for (let from = 0; from < examples.length; from += o.batch_size) {
    const rows = examples.slice(from, from + o.batch_size);
    const indices = rows.map((_, i) => from + i);
    const prompts = rows.map((row) =>
      promptOf(row, { task: o.task, prompt: promptFor(o.task, o.prompt, processor) }),
    );
    const tokens = promptBatch(processor, prompts);
    const image = o.embeds ? await o.embeds(indices) : await readImages(processor, rows);
    const ids = await idsOf(model, processor, image, tokens, from, o).finally(() => dispose(image));
    for (const row of ids) texts.push(processor.decode(row));
    o.onProgress?.(from + rows.length, examples.length);
    await nextTurn();
    o.signal?.throwIfAborted();
  }
  return texts;
}

/** New ids of each row; `from` is the number of the batch's first example. */
async function idsOf(
  model: Blip2,
  processor: Processor,
  image: ImageInput,
  tokens: TokenBatch,
  from: number,
  { generation, num_beams, onText, first_row = 0, ...o }: CaptionOptions,
): Promise<number[][]> {
  const max_new_tokens = o.max_new_tokens ?? defaultNewTokens(model.config, tokens, USUAL_NEW_TOKENS);
  const own = { max_new_tokens, num_beams, eos_token_id: processor.eos, first_row: first_row + from };
  const options = { ...generation, ...own, tokenizer: processor.tokenizer };
  if (!onText) return await generate(model, image, tokens, options);
  const n = generation?.num_return_sequences ?? 1;
  const ids = Array.from({ length: tokens.shape[0] * n }, (): number[] => []);
  for await (const { row, id } of streamTokens(model, image, tokens, options)) {
    ids[row].push(id);
    onText(from * n + row, processor.decode(ids[row]));
  }
  return ids;
}

/** The pixels of these files as one batch, [B, 3, H, W]. @throws DataError that lists the rows whose image is bad */
export async function readImages(
  processor: Processor,
  images: (Example | { image: string | Uint8Array })[],
): Promise<{ pixel_values: Tensor4D }> {
  const read = await Promise.allSettled(images.map(({ image }) => processor.pixels(image)));
  const { height, width } = processor.imageSize;
  const size = 3 * height * width;
  const data = new Float32Array(read.length * size);
  const bad: { example: Example; error: unknown }[] = [];
  for (const [i, one] of read.entries()) {
    const example = images[i];
    if (one.status === 'fulfilled') data.set(one.value, i * size);
    else if ('source' in example && one.reason instanceof DataError) bad.push({ example, error: one.reason });
    else throw one.reason;
  }
  if (bad.length > 0) throw imagesError(bad);
  return { pixel_values: tensor(data, [read.length, 3, height, width]) as Tensor4D };
}

/** Captions for many images, in batches. */
import { generate } from '@blip2/blip2';
import type { Blip2, ImageInput } from '@blip2/blip2';
import { promptBatch, questionPrompt } from '@blip2/data-captions';
import type { Example, Processor } from '@blip2/data-captions';
import { dispose, tensor } from '@blip2/nn';
import type { Tensor4D } from '@blip2/nn';

export interface CaptionOptions {
  batch_size: number;
  max_new_tokens: number;
  num_beams: number;
  task: 'caption' | 'vqa';
  /** text before every caption, or the template of questions, as in training */
  prompt?: string;
  /** what stands in for the pictures of these examples, such as cached features; disposed after use */
  embeds?: (indices: number[]) => ImageInput | Promise<ImageInput>;
  /** raised, it ends the work between two batches with its reason */
  signal?: AbortSignal;
  onProgress?: (done: number, total: number) => void;
}

/** The text a row starts with: the question in its template, or the run's prompt. */
export function promptOf(example: Example, o: Pick<CaptionOptions, 'task' | 'prompt'>): string {
  return o.task === 'vqa' ? questionPrompt(example.question ?? '', o.prompt) : (o.prompt ?? '');
}

/** What the model should say about an example, with single spaces, as it is trained. */
export function referenceOf(example: Example, task: CaptionOptions['task']): string {
  return ((task === 'vqa' ? example.answer : example.caption) ?? '').trim().replace(/\s+/g, ' ');
}

/** One text per example, in their order; images are read from disk unless `embeds` provides them. */
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
    const prompts = rows.map((row) => promptOf(row, o));
    const tokens = promptBatch(processor, prompts);
    const image = o.embeds ? await o.embeds(indices) : await readImages(processor, rows);
    const { max_new_tokens, num_beams } = o;
    const options = { max_new_tokens, num_beams, eos_token_id: processor.eos };
    const ids = await generate(model, image, tokens, options).finally(() => dispose(image));
    for (const row of ids) texts.push(processor.decode(row));
    o.onProgress?.(texts.length, examples.length);
    await new Promise((resolve) => setImmediate(resolve)); // lets signals in: CPU backends never wait
    o.signal?.throwIfAborted();
  }
  return texts;
}

/** The pixels of these files as one batch, [B, 3, H, W]. */
export async function readImages(
  processor: Processor,
  images: (Example | { image: string | Buffer })[],
): Promise<{ pixel_values: Tensor4D }> {
  const pixels = await Promise.all(images.map(({ image }) => processor.pixels(image)));
  const { height, width } = processor.imageSize;
  const size = 3 * height * width;
  const data = new Float32Array(pixels.length * size);
  pixels.forEach((row, i) => data.set(row, i * size));
  return { pixel_values: tensor(data, [pixels.length, 3, height, width]) as Tensor4D };
}

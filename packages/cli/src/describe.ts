/** Generates a text for each image file and prints one per line. Used by `caption` and `answer`. */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { generateCaptions } from '@blip2/trainer';
import { UsageError } from './errors';
import type { ModelFlags } from './model';
import { openModel } from './model';
import { generateOptions } from './options';
import type { DecodingFlags, GenerationFlags } from './options';
import { paint } from './printable';
import type { Ui } from './ui';

export interface DescribeFlags extends ModelFlags, GenerationFlags, DecodingFlags {
  task: 'caption' | 'vqa';
  /** the key of a text in the JSON document */
  key: 'caption' | 'answer';
  prompt?: string;
  question?: string;
}

/** @throws Error, before anything is loaded, if an image file is missing */
export async function describeImages(images: string[], flags: DescribeFlags, ui: Ui): Promise<void> {
  checkStream(images, flags, ui);
  const missing = images.filter((image) => !existsSync(image));
  if (missing.length)
    throw new Error(missing.map((image) => `${image}: there is no such image file`).join('\n'));
  const { model, processor, backend } = await openModel(flags, ui);
  const { task, key, prompt, question } = flags;
  const examples = images.map((image) => ({ image: resolve(image), question, fields: {}, source: image }));
  const texts = await generateCaptions(model, processor, examples, {
    task,
    prompt,
    batch_size: flags.batchSize,
    max_new_tokens: flags.maxNewTokens,
    num_beams: flags.numBeams,
    generation: generateOptions(flags),
    onText: flags.stream ? streamTo(ui) : undefined,
    onProgress: (done, total) => {
      if (total > flags.batchSize) ui.progress('images', `${done} of ${total} images`, done === total);
    },
  });
  if (flags.stream) return ui.write('\n');
  const n = flags.numReturnSequences ?? 1;
  const results = images.map((image, i) => {
    const imageTexts = texts.slice(i * n, (i + 1) * n);
    return {
      image,
      ...(question && { question }),
      [key]: imageTexts[0],
      ...(n > 1 && { [`${key}s`]: imageTexts }),
    };
  });
  const withPath = (text: string, i: number) =>
    images.length === 1 ? text : `${paint.dim(`${images[Math.floor(i / n)]}:`)} ${text}`;
  ui.result({ model: flags.model, backend, results }, () => texts.map(withPath).join('\n'));
}

function checkStream(images: string[], flags: DescribeFlags, { json }: Ui): void {
  const severalTexts = images.length > 1 || flags.numBeams > 1 || (flags.numReturnSequences ?? 1) > 1;
  if (flags.stream && (severalTexts || json))
    throw new UsageError('--stream: expected one image and one text, without --num-beams and --json');
}

/** Prints the new part of a growing text; waits while its last character is incomplete. */
function streamTo(ui: Ui): (row: number, text: string) => void {
  let printed = '';
  return (_, text) => {
    if (!text.startsWith(printed) || text.endsWith('\uFFFD')) return;
    ui.write(text.slice(printed.length));
    printed = text;
  };
}

/** Texts for image files, printed one per line: what `caption` and `answer` share. */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { generateCaptions } from '@blip2/trainer';
import type { ModelFlags } from './model';
import { openModel } from './model';
import type { GenerationFlags } from './options';
import type { Ui } from './ui';

export interface DescribeFlags extends ModelFlags, GenerationFlags {
  task: 'caption' | 'vqa';
  /** what a text is called in the JSON document */
  key: 'caption' | 'answer';
  prompt?: string;
  question?: string;
}

/** @throws before anything is loaded when an image is missing */
export async function describeImages(images: string[], flags: DescribeFlags, ui: Ui): Promise<void> {
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
    onProgress: (done, total) => {
      if (total > flags.batchSize) ui.progress('images', `${done} of ${total} images`, done === total);
    },
  });
  const results = images.map((image, i) => ({ image, ...(question && { question }), [key]: texts[i] }));
  ui.result({ model: flags.model, backend, results }, () =>
    images.length === 1
      ? texts[0]
      : images.map((image, i) => `${ui.paint.dim(`${image}:`)} ${texts[i]}`).join('\n'),
  );
}

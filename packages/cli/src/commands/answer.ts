/** `blip2 answer`: answers a question about images. */
import type { Command } from 'commander';
import { describeImages } from '../describe';
import type { ModelFlags } from '../model';
import type { DecodingFlags, GenerationFlags } from '../options';
import { command, decodingOptions, generationOptions, modelOptions } from '../options';
import type { Ui } from '../ui';

export function answerCommand(ui: Ui): Command {
  const answer = command(
    'answer',
    'Answer a question about images, with the prompt "Question: … Answer:".',
    'blip2 answer cat.jpg --question "what is on the table?" --model models/blip2-emoji-mini',
  ).argument('<image...>', 'image files');
  return decodingOptions(generationOptions(modelOptions(answer)))
    .requiredOption('--question <text>', 'the question')
    .option('--prompt <template>', 'another prompt template; {} is replaced by the question')
    .action(
      (
        images: string[],
        flags: ModelFlags & GenerationFlags & DecodingFlags & { question: string; prompt?: string },
      ) => describeImages(images, { ...flags, task: 'vqa', key: 'answer' }, ui),
    );
}

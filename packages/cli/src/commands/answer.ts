/** `blip2 answer`: one question about pictures. */
import type { Command } from 'commander';
import { describeImages } from '../describe';
import type { ModelFlags } from '../model';
import type { DecodingFlags, GenerationFlags } from '../options';
import { command, decodingOptions, generationOptions, modelOptions } from '../options';
import type { Ui } from '../ui';

export function answerCommand(ui: Ui): Command {
  const made = command(
    'answer',
    'Answer a question about images, asked in the template "Question: … Answer:".',
    'blip2 answer cat.jpg --question "what is on the table?" --model models/blip2-emoji-mini',
  ).argument('<image...>', 'image files');
  return decodingOptions(generationOptions(modelOptions(made)))
    .requiredOption('--question <text>', 'the question')
    .option('--prompt <template>', 'another template; {} stands for the question')
    .action(
      (
        images: string[],
        flags: ModelFlags & GenerationFlags & DecodingFlags & { question: string; prompt?: string },
      ) => describeImages(images, { ...flags, task: 'vqa', key: 'answer' }, ui),
    );
}

/** `blip2 answer`: answers a question about images. */
import type { Command } from 'commander';
import { describeImages } from '../describe';
import type { DescribeFlags } from '../describe-all';
import {
  command,
  decodingOptions,
  generationOptions,
  modelOptions,
  outputOptions,
  PICTURES,
} from '../options';
import type { Ui } from '../ui';

export function answerCommand(ui: Ui): Command {
  const answer = command(
    'answer',
    'Answer a question about images, with the prompt "Question: … Answer:" (Flan-T5: "… Short answer:").',
    'blip2 answer cat.jpg --question "what is on the table?" --model models/blip2-emoji-mini',
  ).argument('<image...>', PICTURES);
  return outputOptions(
    decodingOptions(generationOptions(modelOptions(answer))),
    '{"image": "photo.jpg", "question": "…", "answer": "…"}',
  )
    .requiredOption('--question <text>', 'the question')
    .option('--prompt <template>', 'another prompt template; {} is replaced by the question')
    .action((images: string[], flags: Omit<DescribeFlags, 'task' | 'key'>) =>
      describeImages(images, { ...flags, task: 'vqa', key: 'answer' } as DescribeFlags, ui),
    );
}

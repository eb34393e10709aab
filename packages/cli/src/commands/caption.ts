/** `blip2 caption`: writes captions for images. */
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

export function captionCommand(ui: Ui): Command {
  const caption = command(
    'caption',
    'Write captions for images, or for all pictures of a folder.',
    'blip2 caption photos --model models/blip2-emoji-mini --adapter runs/emoji-demo/adapter --output captions.jsonl',
  ).argument('<image...>', PICTURES);
  return outputOptions(
    decodingOptions(generationOptions(modelOptions(caption))),
    '{"image": "photo.jpg", "caption": "…"}',
  )
    .option('--sidecars', 'write NAME.txt beside each picture; one that is there stays, unless --overwrite')
    .option(
      '--draft <path>',
      'data set with captions of this kind, such as the training data: one picture at a time (--batch-size 1) gets the same caption in fewer passes',
    )
    .option(
      '--prompt <text>',
      'text that every caption continues (default: none; InstructBLIP: "A short image description.")',
    )
    .action((images: string[], flags: Omit<DescribeFlags, 'task' | 'key'>) =>
      describeImages(images, { ...flags, task: 'caption', key: 'caption' } as DescribeFlags, ui),
    );
}

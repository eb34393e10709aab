/** `blip2 caption`: what is in these pictures? */
import type { Command } from 'commander';
import { describeImages } from '../describe';
import type { ModelFlags } from '../model';
import type { GenerationFlags } from '../options';
import { command, generationOptions, modelOptions } from '../options';
import type { Ui } from '../ui';

export function captionCommand(ui: Ui): Command {
  const made = command(
    'caption',
    'Write captions for images.',
    'blip2 caption cat.jpg dog.png --model models/blip2-emoji-mini --adapter runs/emoji-demo/adapter',
  ).argument('<image...>', 'image files');
  return generationOptions(modelOptions(made))
    .option('--prompt <text>', 'text that every caption starts from', '')
    .action((images: string[], flags: ModelFlags & GenerationFlags & { prompt: string }) =>
      describeImages(images, { ...flags, task: 'caption', key: 'caption' }, ui),
    );
}

/** `blip2 caption`: writes captions for images. */
import type { Command } from 'commander';
import { describeImages } from '../describe';
import type { ModelFlags } from '../model';
import type { DecodingFlags, GenerationFlags } from '../options';
import { command, decodingOptions, generationOptions, modelOptions } from '../options';
import type { Ui } from '../ui';

export function captionCommand(ui: Ui): Command {
  const caption = command(
    'caption',
    'Write captions for images.',
    'blip2 caption cat.jpg dog.png --model models/blip2-emoji-mini --adapter runs/emoji-demo/adapter',
  ).argument('<image...>', 'image files');
  return decodingOptions(generationOptions(modelOptions(caption)))
    .option('--prompt <text>', 'text that every caption continues', '')
    .action((images: string[], flags: ModelFlags & GenerationFlags & DecodingFlags & { prompt: string }) =>
      describeImages(images, { ...flags, task: 'caption', key: 'caption' }, ui),
    );
}

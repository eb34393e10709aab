/** The texts that the model of a run generates now. */
import type { Example } from '@blip2/data-captions';
import { cachedInput } from '../features';
import type { Cached } from '../stages';
import type { CaptionOptions } from './captions';

/** How this run generates texts for `examples`. */
export function captionOptions({ config, cache }: Cached, examples: Example[]): CaptionOptions {
  const { max_new_tokens, num_beams, ...generation } = config.generation;
  const imagesOf = (indices: number[]) => indices.map((i) => examples[i].image);
  return {
    task: config.task,
    prompt: config.prompt,
    max_new_tokens,
    num_beams,
    batch_size: config.per_device_eval_batch_size,
    generation,
    embeds: cache && ((indices) => cachedInput(cache, imagesOf(indices))),
  };
}

/** One text per example. @throws the signal's reason when it is raised */
export function textsOf(
  run: Cached,
  examples: Example[],
  more: Pick<CaptionOptions, 'signal' | 'onProgress'> = {},
): Promise<string[]> {
  const options = { ...captionOptions(run, examples), ...more };
  return run.generate(run.model, run.processor, examples, options);
}

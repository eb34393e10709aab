/** The random keys of dropout in the parts of a model. */
import type { Blip2Options } from '@blip2/blip2';
import type { Key } from '@blip2/nn';
import { fold } from '@blip2/nn';

/** One dropout key for each part that trains; the others run as in evaluation. */
export function partKeys(key: Key, trainables: Iterable<string>): NonNullable<Blip2Options['dropout']> {
  const parts = new Set([...trainables].map((name) => name.split('.')[0]));
  const keyOf = (part: string) => (parts.has(part) ? fold(key, part) : undefined);
  return {
    vision_model: keyOf('vision_model'),
    qformer: keyOf('qformer'),
    language_model: keyOf('language_model'),
  };
}

/** Errors about images of rows. */
import type { Problem } from './errors';
import { countRows, DataError, problemFrom, reason } from './errors';
import type { Example } from './example';

/** The message of an error about an image, without the image's name at its start. */
export function faultOf(image: string, error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  const name = [`${image}: `, 'image: '].find((start) => text.startsWith(start)) ?? '';
  return reason(text.slice(name.length));
}

/**
 * Whether a message of `readImage` or `decodeImage` is about the disk, the network or memory: the same image may be readable
 * later. It is not about the image.
 */
export const mayPass = (message: string): boolean =>
  /cannot be read \((?:E[A-Z]+: |the file ends \d+ bytes too early|the file became shorter|Array buffer allocation failed)/.test(
    message,
  ) || message.includes('there is no memory to decode');

/** A bad image as the problem of its row. */
export const imageProblem = ({ source, image }: Pick<Example, 'source' | 'image'>, fault: string): Problem =>
  problemFrom(source, 'an image that can be decoded', `${image}: ${fault}`);

/** The error of training or generation when images cannot be decoded. */
export function imagesError(
  bad: { example: Pick<Example, 'source' | 'image'>; error: unknown }[],
): DataError {
  const problems = bad.map(({ example, error }) => imageProblem(example, faultOf(example.image, error)));
  return new DataError(`${countRows(problems) === 1 ? 'a row' : 'rows'} cannot be used; ${ADVICE}`, problems);
}

/** What to do about bad rows. */
export const ADVICE =
  'repair them, or leave them out with skip_bad (--skip-bad); `blip2 data check` lists all';

/**
 * Names of images, strings so that rows stay small: the path of a file, or a place inside a larger file:
 * `shard.tar#bytes=1536+2048` (offset + length), `data.parquet#row=7&column=image`, or `rows.tsv#base64=90+4000`.
 */
import { existsSync } from 'node:fs';

/** File, offset and length; or file, row and column; or file, and offset and length of base64 text. */
const PLACE = /^(.*)#(?:bytes=(\d+)\+(\d+)|row=(\d+)&column=(.*)|base64=(\d+)\+(\d+))$/s;

/** The name of an image inside a tar file. */
export const bytesAt = (file: string, offset: number, length: number) => `${file}#bytes=${offset}+${length}`;
/** The name of an image inside a Parquet file. */
export const cellOf = (file: string, row: number, column: string) => `${file}#row=${row}&column=${column}`;
/** The name of an image that is base64 text inside a text file. */
export const base64At = (file: string, offset: number, length: number) =>
  `${file}#base64=${offset}+${length}`;

/** The groups of a place in a larger file. A file that exists under the whole name is no place. */
export function placeOf(image: string): RegExpExecArray | undefined {
  const place = PLACE.exec(image);
  return place && !existsSync(image) ? place : undefined;
}

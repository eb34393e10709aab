/**
 * Names of images, strings so that rows stay small: the path of a file, or a place inside a larger file:
 * `shard.tar#bytes=1536+2048` (offset + length) or `data.parquet#row=7&column=image`.
 */

/** File, offset and length; or file, row and column. */
export const PLACE = /^(.*)#(?:bytes=(\d+)\+(\d+)|row=(\d+)&column=(.*))$/s;

/** The name of an image inside a tar file. */
export const bytesAt = (file: string, offset: number, length: number) => `${file}#bytes=${offset}+${length}`;
/** The name of an image inside a Parquet file. */
export const cellOf = (file: string, row: number, column: string) => `${file}#row=${row}&column=${column}`;

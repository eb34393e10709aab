/** Shards of pictures that need no texts: WebDataset tar files and Parquet files, as `caption` reads them. */
import type { Problem } from './errors';
import { readParquet } from './formats/parquet';
import { readTar } from './formats/tar';

export const SHARD_NAME = /\.(?:tar|parquet)$/i;

export interface ShardPicture {
  /** the name of the sample in a tar file, the number of the row (from 0) in a Parquet file */
  key: string;
  /** as `readImage` and `Processor.pixels` take it */
  image: string;
}

/**
 * The pictures of a shard in its order, and the samples that have none. The pictures themselves are not read.
 * @throws DataError when the file is damaged
 */
export async function shardPictures(
  file: string,
): Promise<{ pictures: ShardPicture[]; problems: Problem[] }> {
  const tar = /\.tar$/i.test(file);
  const { rows, problems } = await (tar ? readTar(file) : readParquet(file));
  const pictures: ShardPicture[] = [];
  for (const [i, { source, image }] of rows.entries()) {
    if (image === undefined)
      problems.push({ source, expected: 'a column with the bytes of an image', found: 'none' });
    else pictures.push({ key: tar ? source.slice(file.length + 1) : String(i), image });
  }
  return { pictures, problems };
}

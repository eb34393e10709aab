/** Flickr8k's lists of pictures, `Flickr_8k.trainImages.txt`, which make the splits of its captions. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { canonical } from '../splits';
import { isFile } from '../find-files';
import { entriesOf } from './folder';
import type { Row } from './row';

/** Rows with the split of the list that names their picture; unchanged if there are no lists beside the file. */
export function tokenSplits(rows: Row[], file: string): Row[] {
  const folder = dirname(file);
  if (!/\.token(?:\.txt)?$/i.test(file)) return rows;
  const splits = new Map<unknown, string>();
  for (const { name } of entriesOf(folder)) {
    const split = /(train|dev|val|test)Images\.txt$/i.exec(name)?.[1];
    if (split === undefined || !isFile(join(folder, name))) continue;
    for (const line of readFileSync(join(folder, name), 'utf8').split(/\r?\n/))
      splits.set(line.trim(), canonical(split));
  }
  if (splits.size === 0) return rows;
  return rows.map((row) => ({ ...row, split: splits.get(row.values.image) ?? 'rest' }));
}

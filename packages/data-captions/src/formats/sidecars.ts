/**
 * Pictures with their captions beside them: `photo.png` and `photo.txt` or `photo.caption`, as kohya, LyCORIS, ai-toolkit, OneTrainer
 * and captioning tools write them, and img2dataset's `files` layout with `.txt` and `.json`.
 */
import { basename, extname, join, relative, sep } from 'node:path';
import type { Problem } from '../errors';
import { DataError, problemFrom, reason, show } from '../errors';
import { readJsonText, readText } from './encoding';
import { entriesOf, foldersBelow, PICTURE_NAME } from './folder';
import { canonical, SPLITS } from '../splits';
import type { ReadRows, Row } from './row';
import { isRecord } from './row';

const DEPTH = 4;
const MOST_FOLDERS = 10_000;
/** The first one that a picture has is its caption: `.txt` often contains tags where there is a `.caption` too. */
const TEXTS = ['.caption', '.txt'];
/** Texts that belong to no picture. */
const OTHER =
  /^(?:readme|licen[cs]e|notice|copying|credits|changelog|classes|labels|tags|sample_?prompts|requirements|robots)\b/i;

const stemOf = (name: string) => name.slice(0, name.length - extname(name).length);

/** Names of the files in a folder that are captions or columns of a picture in it, and of these pictures. */
export function sidecarsIn(folder: string): { pictures: string[]; sidecars: Set<string>; others: string[] } {
  const names = entriesOf(folder)
    .filter((e) => !e.isDirectory())
    .map(({ name }) => name);
  const pictures = names.filter((name) => PICTURE_NAME.test(name));
  const stems = new Set(pictures.flatMap((name) => [stemOf(name), name])); // also photo.jpg.txt
  const besides = names.filter((name) => /\.(?:txt|caption|json)$/i.test(name));
  const sidecars = new Set(besides.filter((name) => stems.has(stemOf(name))));
  const others = besides.filter(
    (name) => /\.(?:txt|caption)$/i.test(name) && !sidecars.has(name) && !OTHER.test(name),
  );
  return { pictures, sidecars, others };
}

/** Whether a folder, or one below it, has a picture with a caption beside it. */
export const hasSidecars = (root: string) =>
  foldersBelow(root, DEPTH, MOST_FOLDERS).some((folder) => sidecarsIn(folder).sidecars.size > 0);

/** One row for each picture below a folder. Pictures without a text, and texts without a picture, are problems. */
export async function readSidecars(root: string): Promise<ReadRows> {
  const rows: Row[] = [];
  const problems: Problem[] = [];
  for (const folder of foldersBelow(root, DEPTH, MOST_FOLDERS)) {
    const { pictures, sidecars, others } = sidecarsIn(folder);
    if (sidecars.size === 0 && pictures.length === 0) continue;
    const byName = new Map([...sidecars].map((name) => [stemOf(name) + extname(name).toLowerCase(), name]));
    const split = splitOf(relative(root, folder).split(sep)[0]);
    for (const name of pictures) {
      const row: Row = {
        source: join(folder, name),
        values: {},
        bases: [folder],
        image: join(folder, name),
        split,
      };
      const beside = (ending: string) => byName.get(stemOf(name) + ending) ?? byName.get(name + ending);
      const text = TEXTS.map(beside).find((file) => file !== undefined);
      const json = beside('.json');
      try {
        if (json !== undefined) row.values = await columnsIn(join(folder, json));
        if (text !== undefined)
          row.values = { ...row.values, text: captionsIn(await readText(join(folder, text)), text) };
      } catch (error) {
        problems.push(problemFrom(row.source, 'a caption beside it', reason(error)));
        continue;
      }
      if (text === undefined && json === undefined) {
        const expected = `a caption in ${show(`${stemOf(name)}.txt`)} or .caption beside it`;
        problems.push({ source: row.source, expected, found: 'neither' });
      } else rows.push(row);
    }
    for (const name of pictures.length > 0 ? others : [])
      problems.push({
        source: join(folder, name),
        expected: 'a picture of the same name beside it',
        found: 'none',
      });
  }
  return { rows, problems };
}

const splitOf = (name: string) => (SPLITS.includes(canonical(name)) ? canonical(name) : undefined);

/** Every line with words is a caption of its own, as in OneTrainer, SimpleTuner and kohya's wildcards. */
function captionsIn(text: string, file: string): string | string[] {
  const lines = text
    .split(/\r\n|\n|\r/)
    .map((line) => line.trim())
    .filter((line) => line !== '');
  if (lines.length === 0) throw new DataError(`no words in ${show(file)}`);
  return lines.length > 1 ? lines : lines[0];
}

async function columnsIn(file: string): Promise<Row['values']> {
  let text = await readJsonText(file, '');
  try {
    const value: unknown = JSON.parse(text);
    if (isRecord(value)) return value;
    text = show(value);
  } catch (error) {
    throw new DataError(`${basename(file)}: cannot be read as JSON (${reason(error)})`);
  }
  throw new DataError(`${basename(file)}: expected one JSON object, found ${text}`);
}

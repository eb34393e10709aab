/** A check of a whole data set before training. */
import { encodePair, textPair } from '../collate';
import type { Layout } from '../layout';
import { openSplits } from '../dataset';
import type { DecodeOptions } from '../decode-image';
import type { SplitContents } from '../dataset';
import type { Problem } from '../errors';
import { countRows, inOrder, show } from '../errors';
import type { Example } from '../example';
import { allAnswers, allCaptions } from '../example';
import type { TextRules } from '../judge';
import { imageProblem } from '../image-errors';
import type { ImageFacts } from './images';
import { imageFacts } from './images';
import type { Distribution } from './texts';
import { distribution, suspicions } from './texts';

export interface CheckOptions extends Layout {
  /**
   * What the texts are used for, as in `openDataset`. With a processor tokens are counted; with `truncate`, texts of more than
   * `max_text_length` tokens are counted as cut.
   */
  texts?: TextRules;
  /** Images decoded at the same time. Default 2. */
  concurrency?: number;
  decoding?: DecodeOptions;
  onProgress?: (done: number, total: number) => void;
}

/** One remark on one row. */
export interface Finding {
  split: string | null;
  source: string;
  image: string;
  what: string;
}

export interface SplitReport {
  /** Null if the data is not split, and for rows that belong to no split although others do. */
  split: string | null;
  /** All rows. */
  rows: number;
  /** Rows that cannot be used, each counted once. All other figures are those of the rest. */
  bad_rows: number;
  /** Different names of images. */
  images: number;
  captions: number;
  questions: number;
  words?: Distribution;
  tokens?: Distribution;
  /** Rows by number of tokens, in bins of `histogram_step`. */
  histogram: number[];
  /** Rows whose text is longer than max_text_length. */
  truncated: number;
  sides?: { width: Distribution; height: Distribution };
  formats: Record<string, number>;
}

export interface DataReport {
  path: string;
  splits: SplitReport[];
  histogram_step: number;
  /** Everything that is wrong with the rows that cannot be used: a row may have several problems. */
  bad_rows: (Problem & { split: string | null })[];
  /** The number of these rows. */
  unusable: number;
  odd: Finding[];
  suspicious: Finding[];
  /** Groups of files with the same content under different names. */
  duplicates: { split: string | null; source: string; image: string }[][];
  /** Images whose content is in more than one split. */
  leaks: { splits: (string | null)[]; sources: string[]; image: string }[];
  /** The commonest captions or answers and how many rows have them. */
  commonest: { text: string; rows: number }[];
  /** True if no row is bad. */
  usable: boolean;
}

const STEP = 4;

/**
 * Reads every text and every image of every split.
 * @throws DataError only when the path is not a data set, or a split has no rows
 */
export async function checkData(path: string, options: CheckOptions = {}): Promise<DataReport> {
  const { path: root, splits: read } = await openSplits(path, options);
  const facts = await allImages(
    read.flatMap(({ examples }) => examples.map(({ image }) => image)),
    options,
  );
  const splits = read.map((split) => withoutBadImages(split, facts));
  const rows = splits.flatMap(({ split, examples }) =>
    examples.map((example) => ({ split: split ?? null, example, facts: facts.get(example.image)! })),
  );
  const finding = (row: (typeof rows)[number], what: string): Finding => ({
    split: row.split,
    source: row.example.source,
    image: row.example.image,
    what,
  });
  const bad_rows = splits.flatMap(({ split, bad }) => bad.map((p) => ({ ...p, split: split ?? null })));
  return {
    path: root,
    splits: splits.map((split) => splitReport(split, facts, options.texts ?? {})),
    histogram_step: STEP,
    bad_rows,
    unusable: countRows(bad_rows),
    odd: rows.flatMap((row) => row.facts.odd.map((what) => finding(row, what))),
    suspicious: rows.flatMap((row) => textRemarks(row.example).map((what) => finding(row, what))),
    ...sameContents(rows),
    commonest: commonestTexts(rows.map(({ example }) => example)),
    usable: bad_rows.length === 0,
  };
}

function withoutBadImages(
  { split, examples, bad }: SplitContents,
  facts: Map<string, ImageFacts>,
): SplitContents {
  const faults = examples.flatMap((example) => {
    const { unreadable } = facts.get(example.image)!;
    return unreadable === undefined ? [] : [imageProblem(example, unreadable)];
  });
  const good = examples.filter(({ image }) => facts.get(image)!.unreadable === undefined);
  return { split, examples: good, bad: inOrder([...bad, ...faults]) };
}

/** The facts of each distinct image by name, `concurrency` at a time. */
async function allImages(names: string[], o: CheckOptions): Promise<Map<string, ImageFacts>> {
  const distinct = [...new Set(names)];
  const facts = new Map<string, ImageFacts>();
  let next = 0;
  const lane = async () => {
    while (next < distinct.length) {
      const image = distinct[next++];
      facts.set(image, await imageFacts(image, o.decoding));
      o.onProgress?.(facts.size, distinct.length);
    }
  };
  await Promise.all(Array.from({ length: o.concurrency ?? 2 }, lane));
  return facts;
}

function splitReport(
  { split, examples, bad }: SplitContents,
  all: Map<string, ImageFacts>,
  texts: TextRules,
): SplitReport {
  const facts = examples.map(({ image }) => all.get(image)!);
  const lengths = tokenLengths(examples, texts);
  const [width, height] = [
    distribution(facts.map((f) => f.width!)),
    distribution(facts.map((f) => f.height!)),
  ];
  const formats: Record<string, number> = {};
  for (const { format } of facts) formats[format!] = (formats[format!] ?? 0) + 1;
  const histogram: number[] = [];
  for (const length of lengths)
    histogram[Math.floor(length / STEP)] = (histogram[Math.floor(length / STEP)] ?? 0) + 1;
  return {
    split: split ?? null,
    rows: examples.length + countRows(bad),
    bad_rows: countRows(bad),
    images: new Set(examples.map(({ image }) => image)).size,
    captions: examples.reduce((sum, example) => sum + allCaptions(example).length, 0),
    questions: examples.filter((e) => e.question !== undefined).length,
    words: distribution(examples.flatMap((e) => targets(e).map((text) => text.trim().split(/\s+/).length))),
    tokens: distribution(lengths),
    histogram: Array.from(histogram, (count) => count ?? 0),
    truncated: lengths.filter((length) => texts.truncate && length > (texts.max_text_length ?? Infinity))
      .length,
    ...(width && height && { sides: { width, height } }),
    formats,
  };
}

/** All texts that training on a row may learn. */
const targets = (example: Example) => [...allCaptions(example), ...allAnswers(example)];

/** Tokens of each row's longest text, counted as in training: bos, prompt, target, eos. */
function tokenLengths(examples: Example[], { processor, task: only, prompt }: TextRules): number[] {
  if (!processor) return [];
  return examples.map((example) => {
    const task = only ?? (example.question === undefined ? 'caption' : 'vqa');
    const texts =
      only === undefined ? targets(example) : only === 'vqa' ? allAnswers(example) : allCaptions(example);
    const lengths = texts.map((target) => {
      const pair = encodePair({ prompt: textPair(example, task, prompt).prompt, target }, processor);
      return pair.prompt.length + pair.target.length + (processor.bos === undefined ? 1 : 2);
    });
    return Math.max(...lengths);
  });
}

function textRemarks(example: Example): string[] {
  const { question } = example;
  const remarks = (text: string, kind: 'caption' | 'question' | 'answer') =>
    suspicions(text, kind).map((what) => `${kind} with ${what}: ${show(text)}`);
  return [
    ...allCaptions(example).flatMap((text) => remarks(text, 'caption')),
    ...(question === undefined ? [] : remarks(question, 'question')),
    ...[...new Set(allAnswers(example))].flatMap((text) => remarks(text, 'answer')),
  ];
}

/** Images with the same content under several names, and in several splits. */
function sameContents(
  rows: { split: string | null; example: Example; facts: ImageFacts }[],
): Pick<DataReport, 'duplicates' | 'leaks'> {
  const groups = new Map<string, typeof rows>();
  for (const row of rows) {
    const { id } = row.facts;
    if (id === undefined) continue;
    if (!groups.has(id)) groups.set(id, []);
    groups.get(id)!.push(row);
  }
  const all = [...groups.values()];
  const names = (group: typeof rows) => new Map(group.map((row) => [row.example.image, row])); // one row per name
  return {
    duplicates: all
      .filter((group) => names(group).size > 1)
      .map((group) =>
        [...names(group).values()].map(({ split, example: { source, image } }) => ({ split, source, image })),
      ),
    leaks: all.flatMap((group) => {
      const splits = [...new Set(group.map(({ split }) => split))];
      if (splits.length < 2) return [];
      return [{ splits, sources: group.map(({ example }) => example.source), image: group[0].example.image }];
    }),
  };
}

function commonestTexts(examples: Example[]): DataReport['commonest'] {
  const counts = new Map<string, number>();
  for (const example of examples)
    for (const text of new Set(targets(example))) counts.set(text, (counts.get(text) ?? 0) + 1);
  const often = [...counts].filter(([, rows]) => rows > 1).sort((a, b) => b[1] - a[1]);
  return often.slice(0, 10).map(([text, rows]) => ({ text, rows }));
}

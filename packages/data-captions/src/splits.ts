/** Names of splits, as people and data sets spell them. */
import { normal } from './columns';

export const SPLITS = ['train', 'validation', 'test'];

/** Other spellings; `restval` is Karpathy's rest of COCO's validation pictures, used for training. */
const SPELLINGS: Record<string, string> = {
  training: 'train',
  trainset: 'train',
  trn: 'train',
  restval: 'train',
  val: 'validation',
  valid: 'validation',
  dev: 'validation',
  eval: 'validation',
  valset: 'validation',
  devset: 'validation',
  testing: 'test',
  testset: 'test',
  tst: 'test',
};

/** `val`, `valid`, `dev` mean `validation`, `Training` means `train`; other names are unchanged. */
export function canonical(name: string): string {
  const key = name
    .trim()
    .toLowerCase()
    .replace(/[\s_-]/g, '');
  return SPELLINGS[key] ?? (SPLITS.includes(key) ? key : name.trim());
}

const WORD = /(?:^|[^a-z])(training|train|validation|valid|val|dev|testing|test)(?![a-z])/;

/** The split in the name of a file or folder: `train-00000-of-00002.parquet`, `captions_val2014.json`. */
export function splitIn(name: string): string | undefined {
  const found = WORD.exec(name.toLowerCase());
  return found === null ? undefined : canonical(found[1]);
}

/** Columns that contain a split if their value is the name of one. */
const COLUMNS = new Set([
  'split',
  'set',
  'subset',
  'partition',
  'setname',
  'splitname',
  'datasetsplit',
  'phase',
]);

/** The split in a row's own column, which is more exact than a file's name. */
export function splitColumn(values: Record<string, unknown>): string | undefined {
  for (const [name, value] of Object.entries(values)) {
    if (typeof value !== 'string' || value.trim() === '' || !COLUMNS.has(normal(name))) continue;
    const split = canonical(value);
    if (normal(name) === 'split' || SPLITS.includes(split)) return split;
  }
  const { phrase_type: phrase, qid } = values; // VQA-RAD marks its test questions so
  if (typeof phrase !== 'string' || qid === undefined) return undefined;
  return phrase.startsWith('test_') ? 'test' : 'train';
}

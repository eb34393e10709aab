/** Checks for suspicious captions, questions and answers, and statistics of lengths. */

const MOST_WORDS = 50;
const RULES: [what: string, test: (text: string) => boolean][] = [
  [
    'a placeholder instead of words',
    (text) => /^\W*(?:null|nan|none|n\/a|undefined|todo|tbd|caption)\W*$/i.test(text),
  ],
  ['no letter or digit', (text) => !/[\p{L}\p{N}]/u.test(text)],
  ['an address', (text) => /https?:\/\/|www\./i.test(text)],
  ['markup', (text) => /<\/?[a-z][^>]*>|&[a-z]+;/i.test(text)],
  ['a file name', (text) => /\b[\w-]+\.(?:jpe?g|png|gif|webp|tiff?)\b/i.test(text)],
  ['broken characters', (text) => /\ufffd|Ã[\u0080-\u00bf]|â€/.test(text)],
  ['control characters', (text) => /\p{Cc}/u.test(text.replace(/[\n\r\t]/g, ''))],
  [`more than ${MOST_WORDS} words`, (text) => text.trim().split(/\s+/).length > MOST_WORDS],
  ['all capitals', (text) => /\p{Lu}{4}/u.test(text) && !/\p{Ll}/u.test(text)],
];

/** Names of the rules that a text breaks. A single word is fine as an answer, but suspicious as a caption. */
export function suspicions(text: string, kind: 'caption' | 'question' | 'answer'): string[] {
  const found = RULES.filter(([what, test]) => test(text) && !(kind === 'answer' && SHORT_IS_FINE.has(what)));
  const short = kind === 'caption' && text.trim().split(/\s+/).length < 2 ? ['a single word'] : [];
  return [...found.map(([what]) => what), ...short];
}

/** `none` and `USA` are ordinary answers. */
const SHORT_IS_FINE = new Set(['a placeholder instead of words', 'all capitals']);

export interface Distribution {
  min: number;
  median: number;
  mean: number;
  p95: number;
  max: number;
}

/** The distribution of some numbers; undefined for an empty list. */
export function distribution(values: number[]): Distribution | undefined {
  if (values.length === 0) return undefined;
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  const mean = sorted.reduce((sum, x) => sum + x, 0) / sorted.length;
  return { min: sorted[0], median: at(0.5), mean, p95: at(0.95), max: sorted[sorted.length - 1] };
}

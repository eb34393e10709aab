/**
 * Penn Treebank tokens of captions, lower-cased and without punctuation, as COCO's evaluation makes them.
 * Reference: Stanford's PTBTokenizer 3.4.1 with -lowerCase, as called by pycocoevalcap. Where several rules fit, the
 * longest match wins, and in a tie the earlier rule. It was written from the program's behaviour on captions; telephone
 * numbers in brackets and markup beyond simple tags are not covered. The Java program reads all captions as one text, so
 * its tokens for a single letter with a full stop ("80°F.") depend on the next caption. Here a caption's end ends the
 * sentence.
 */

/** Tokens that pycocoevalcap removes. It looks for -LRB- after lower-casing to -lrb-, so brackets stay, here too. */
const REMOVED = new Set(["''", "'", '``', '`', '.', '?', '!', ',', ':', '-', '--', '...', ';']);

const BRACKETS: Record<string, string> = {
  '(': '-lrb-',
  ')': '-rrb-',
  '[': '-lsb-',
  ']': '-rsb-',
  '{': '-lcb-',
  '}': '-rcb-',
};
const CURRENCY: Record<string, string> = { '£': '#', '€': '$', '¢': 'cents' };
const FRACTIONS: Record<string, string> = { '½': '1/2', '¼': '1/4', '¾': '3/4', '⅓': '1/3', '⅔': '2/3' };

const SPELLED = /(?<=^[:;=<>-]+)[()]$/;
const ENDS = /^[\u2019](?=[smdrvl])|(?<=^n)[\u2019](?=t$)/;

const ENTITIES: Record<string, string> = {
  '&amp;': '&',
  '&lt;': '<',
  '&gt;': '>',
  '&quot;': '"',
  '&apos;': "'",
  '&nbsp;': ' ',
};
const ENTITY = /&(?:amp|lt|gt|quot|apos|nbsp);/gi;

const LETTER = '\\p{L}';
const LETTER_OR_DIGIT = '[\\p{L}\\p{Nd}]';
const WORD = `${LETTER}${LETTER_OR_DIGIT}*(?:[.!?]${LETTER}${LETTER_OR_DIGIT}*)*`;
const APOS = "['\\u2019]";
const ENDING = `${APOS}(?:[msd]|re|ve|ll)`;
const THING_PART = `(?:[dol]${APOS}${LETTER_OR_DIGIT})?${LETTER_OR_DIGIT}+`;
const ABBREVIATIONS =
  'mr|mrs|ms|messrs|dr|drs|st|sts|jr|sr|vs|etc|inc|co|cos|corp|ltd|ave|blvd|mt|ft|prof|gen|gov|lt|col|sgt|capt|rev|hon|rep|sen|jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec|tel|est|ext|sq|bros|ph\\.d|ed|al|figs?|art|pp|rd';

/** The first group of a rule is the token. The rest of the match is lookahead: it counts for the length but is not consumed. */
const RULES: readonly RegExp[] = [
  '(https?://[^ \t"<>|()]+[^ \t"<>|.!?(){},-])',
  '([a-z0-9][^ \t"<>|(){}]*@(?:[^ \t"<>|(){}.]+\\.)*[^ \t"<>|(){}.,;:\\[\\]]+)',
  '([<>]?[:;=]-?[()DP](?![a-z])|xD(?![a-z])|\\^_+\\^)',
  '(c\\+\\+|[cf]#)',
  '([A-Z]+\\$)',
  '(\\.(?: \\.){2,})',
  '(<(?:/?[a-z][a-z0-9:.-]*(?: +[a-z][a-z0-9:.-]*(?: *= *(?:"[^"\\n]*"|\'[^\'\\n]*\'|[a-z0-9_:.-]+))?)* */?|![a-z-][^>\\n]*) *>)',
  '(can)not',
  '(gon|wan)na',
  '(got)ta',
  '(lem|gim)me',
  `(${APOS}t)(?:is|was)`,
  `(${WORD}?)n${APOS}t`,
  `(${WORD})${ENDING}`,
  `(n${APOS}t)`,
  `(${ENDING})`,
  `(${APOS}n${APOS}|[ldj]${APOS}|somethin${APOS}|ol${APOS}|${APOS}em|c${APOS}mon|${APOS}cause|${APOS}til|y${APOS}|o${APOS}clock|ma${APOS}am|s${APOS}mores|li${APOS}l|nor${APOS}easter)`,
  "(')[a-z][a-z]",
  `(${APOS}\\d\\ds)`,
  `(${WORD})`,
  `(${THING_PART}(?:-${THING_PART})*)`,
  '([a-z0-9]+(?:-[a-z]+){0,2}(?:/[a-z0-9]+(?:-[a-z]+){0,2}){1,2})',
  '([a-z0-9][a-z0-9.,]*(?:-[a-z0-9]+)+)',
  '([A-Z]+(?:[+&][A-Z]+)+)',
  '([+-]?(?:\\p{Nd}+(?:[.:,]\\p{Nd}+)*|(?:[.:,]\\p{Nd}+)+))',
  '((?:\\p{Nd}{1,4}[- ])?\\p{Nd}{1,4}/\\p{Nd}{1,4})',
  '(\\p{Nd}{1,2}[-/]\\p{Nd}{1,2}[-/]\\p{Nd}{2,4})',
  '((?:[a-z](?:\\.[a-z])+)\\.?)',
  `((?:${ABBREVIATIONS})\\.)`,
  '([a-z]\\.)(?!\\s*$)',
  '(nos?\\.)(?= *\\p{Nd})',
  '([@#][a-z_][a-z_0-9]*)',
  '([a-z0-9]+(?:_[a-z0-9]+)+)',
  '(\\.{3,})',
  '(-{2,})',
  '([?!]+)',
  "(``|'')",
  '(<<|>>)',
  '(_{2,}|\\*{1,3})',
  '([^\\s])',
].map((source) => new RegExp(source, source.includes('A-Z') ? 'uy' : 'iuy'));

const PLAIN = /[A-Za-z]+(?=\s|$)/y;
const SPLIT = /^(?:cannot|gonna|wanna|gotta|lemme|gimme)$/i;

/** The tokens of a caption, without those that are punctuation. */
export function ptbTokenize(text: string): string[] {
  return ptbTokens(text).filter((token) => !REMOVED.has(token));
}

/** All tokens, with punctuation. */
export function ptbTokens(text: string): string[] {
  const tokens: string[] = [];
  const line = prepare(text);
  for (let at = 0; at < line.length;) {
    if (/\s/.test(line[at])) {
      at++;
      continue;
    }
    const token = plainWord(line, at) ?? longest(line, at);
    at += token.length;
    tokens.push(...written(token));
  }
  return tokens;
}

/** Joins lines and removes the characters that the reference tokenizer drops. */
function prepare(text: string): string {
  return text
    .replace(ENTITY, (entity) => ENTITIES[entity.toLowerCase()])
    .replace(/[\n\r\u200b\u{10000}-\u{10ffff}]/gu, ' ')
    .replace(/\u00ad/g, '');
}

/** Fast path for plain words between spaces, which most of a caption is; words that a rule splits are excluded. */
function plainWord(line: string, at: number): string | undefined {
  PLAIN.lastIndex = at;
  const word = PLAIN.exec(line)?.[0];
  return word === undefined || SPLIT.test(word) ? undefined : word;
}

function longest(line: string, at: number): string {
  let [token, length] = ['', 0];
  for (const rule of RULES) {
    rule.lastIndex = at;
    const match = rule.exec(line);
    if (match && match[0].length > length && match[1] !== '') [token, length] = [match[1], match[0].length];
  }
  return token;
}

/** A token as the reference writes it: lower case, plain quotes, spelled-out brackets. */
function written(token: string): string[] {
  if (BRACKETS[token]) return [BRACKETS[token]];
  if (CURRENCY[token]) return [CURRENCY[token]];
  if (FRACTIONS[token]) return [FRACTIONS[token]];
  if (/^["“”«»]$/.test(token)) return ["''"];
  if (/^[‘’‹›]$/.test(token)) return ["'"];
  if (/^(\.{3,}|…|\.( \.)+)$/.test(token)) return ['...'];
  if (/^(-{2,}|[–—―])$/.test(token)) return ['--'];
  if (token === '‒') return ['-'];
  return [
    token
      .toLowerCase()
      .replace(SPELLED, (brackets) => BRACKETS[brackets])
      .replace(ENDS, "'"),
  ];
}

/**
 * Porter's stemmer with NLTK's extensions, as METEOR uses it to match inflected words.
 * Reference: M. Porter, "An algorithm for suffix stripping" (1980); nltk.stem.porter.PorterStemmer, its default mode.
 */

const IRREGULAR = new Map(
  Object.entries({
    sky: 'sky',
    skies: 'sky',
    dying: 'die',
    lying: 'lie',
    tying: 'tie',
    news: 'news',
    innings: 'inning',
    inning: 'inning',
    outings: 'outing',
    outing: 'outing',
    cannings: 'canning',
    canning: 'canning',
    howe: 'howe',
    proceed: 'proceed',
    exceed: 'exceed',
    succeed: 'succeed',
  }),
);

/** The stem of a word, lower-cased. Words of one or two letters stay as they are. */
export function stem(word: string): string {
  const lower = word.toLowerCase();
  const irregular = IRREGULAR.get(lower);
  if (irregular !== undefined) return irregular;
  if ([...word].length <= 2) return lower;
  return [plurals, pastAndGerund, finalY, doubleSuffixes, adjectiveSuffixes, residualSuffixes, finalE, finalL]
    .reduce((letters, step) => step(letters), [...lower])
    .join('');
}

type Word = string[];
type Condition = (stem: Word) => boolean;
type Rule = readonly [suffix: string, replacement: string, condition?: Condition];

/** `y` is a consonant unless it follows one; of the other letters all but a, e, i, o, u are consonants. */
function consonants(word: Word): boolean[] {
  const flags: boolean[] = [];
  for (const [i, letter] of word.entries()) {
    flags.push('aeiou'.includes(letter) ? false : letter === 'y' && i > 0 ? !flags[i - 1] : true);
  }
  return flags;
}

/** Porter's m: how often a vowel is followed by a consonant. */
function measure(word: Word): number {
  const flags = consonants(word);
  return flags.filter((consonant, i) => consonant && i > 0 && !flags[i - 1]).length;
}
const above =
  (m: number): Condition =>
  (word) =>
    measure(word) > m;

/** Ends with consonant, vowel, consonant other than w, x, y; or is a vowel and a consonant. */
function endsShort(word: Word): boolean {
  const flags = consonants(word);
  const n = word.length;
  if (n === 2) return !flags[0] && flags[1];
  return n >= 3 && flags[n - 3] && !flags[n - 2] && flags[n - 1] && !'wxy'.includes(word[n - 1]);
}

function endsDouble(word: Word): boolean {
  const n = word.length;
  return n >= 2 && word[n - 1] === word[n - 2] && consonants(word)[n - 1];
}

const ends = (word: Word, suffix: string) => word.slice(-suffix.length).join('') === suffix;
const without = (word: Word, suffix: string) => word.slice(0, word.length - suffix.length);

/** Applies the first rule whose suffix matches. If its condition fails, no later rule is tried. */
function applyRules(word: Word, rules: readonly Rule[]): Word {
  for (const [suffix, replacement, condition] of rules) {
    if (!ends(word, suffix)) continue;
    const head = without(word, suffix);
    return !condition || condition(head) ? [...head, ...replacement] : word;
  }
  return word;
}

function plurals(word: Word): Word {
  if (ends(word, 'ies') && word.length === 4) return [...without(word, 'ies'), 'i', 'e'];
  return applyRules(word, [
    ['sses', 'ss'],
    ['ies', 'i'],
    ['ss', 'ss'],
    ['s', ''],
  ]);
}

function pastAndGerund(word: Word): Word {
  if (ends(word, 'ied')) return [...without(word, 'ied'), ...(word.length === 4 ? 'ie' : 'i')];
  if (ends(word, 'eed')) return above(0)(without(word, 'eed')) ? without(word, 'd') : word;
  const suffix = ['ed', 'ing'].find((s) => ends(word, s) && consonants(without(word, s)).includes(false));
  if (suffix === undefined) return word;
  const head = without(word, suffix);
  if (['at', 'bl', 'iz'].some((end) => ends(head, end))) return [...head, 'e'];
  if (endsDouble(head)) return 'lsz'.includes(head[head.length - 1]) ? head : head.slice(0, -1);
  return measure(head) === 1 && endsShort(head) ? [...head, 'e'] : head;
}

function finalY(word: Word): Word {
  return applyRules(word, [['y', 'i', (head) => head.length > 1 && consonants(head)[head.length - 1]]]);
}

function doubleSuffixes(word: Word): Word {
  if (ends(word, 'alli') && above(0)(without(word, 'alli'))) return doubleSuffixes(word.slice(0, -2));
  const pairs: [string, string][] = [
    ['ational', 'ate'],
    ['tional', 'tion'],
    ['enci', 'ence'],
    ['anci', 'ance'],
    ['izer', 'ize'],
    ['bli', 'ble'],
    ['alli', 'al'],
    ['entli', 'ent'],
    ['eli', 'e'],
    ['ousli', 'ous'],
    ['ization', 'ize'],
    ['ation', 'ate'],
    ['ator', 'ate'],
    ['alism', 'al'],
    ['iveness', 'ive'],
    ['fulness', 'ful'],
    ['ousness', 'ous'],
    ['aliti', 'al'],
    ['iviti', 'ive'],
    ['biliti', 'ble'],
    ['fulli', 'ful'],
  ];
  const rules = pairs.map(([suffix, replacement]): Rule => [suffix, replacement, above(0)]);
  // the l of -logi belongs to the stem, so geology and theology are shortened too
  return applyRules(word, [...rules, ['logi', 'log', (head) => above(0)([...head, 'l'])]]);
}

function adjectiveSuffixes(word: Word): Word {
  const pairs = { icate: 'ic', ative: '', alize: 'al', iciti: 'ic', ical: 'ic', ful: '', ness: '' };
  return applyRules(
    word,
    Object.entries(pairs).map(([suffix, replacement]): Rule => [suffix, replacement, above(0)]),
  );
}

function residualSuffixes(word: Word): Word {
  const before = 'al ance ence er ic able ible ant ement ment ent'.split(' ');
  const after = 'ou ism ate iti ous ive ize'.split(' ');
  const plain = (suffix: string): Rule => [suffix, '', above(1)];
  const ion: Rule = ['ion', '', (head) => above(1)(head) && 'st'.includes(head[head.length - 1])];
  return applyRules(word, [...before.map(plain), ion, ...after.map(plain)]);
}

function finalE(word: Word): Word {
  if (!ends(word, 'e')) return word;
  const head = without(word, 'e');
  const m = measure(head);
  return m > 1 || (m === 1 && !endsShort(head)) ? head : word;
}

function finalL(word: Word): Word {
  return ends(word, 'll') && above(1)(word.slice(0, -1)) ? word.slice(0, -1) : word;
}

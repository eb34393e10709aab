// Trains a byte-level byte-pair encoding (Sennrich et al. 2016; byte alphabet and word pattern of GPT-2).
// Deterministic: the most frequent pair is merged; of equally frequent pairs, the one with the smaller text.

/** GPT-2's word pattern; in tokenizer.json, `ByteLevel` with use_regex. */
const WORDS = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

export interface Bpe {
  /** Token text (in the byte alphabet) to id: specials, 256 bytes, then one token per merge. */
  vocab: Map<string, number>;
  /** Pairs in the order they are applied. */
  merges: [string, string][];
}

interface Word {
  symbols: number[];
  count: number;
}

/**
 * @param texts lines; each gets a leading space, as add_prefix_space does
 * @param specials tokens with the ids 0, 1, …, which never occur in text
 */
export function trainBpe(texts: Iterable<string>, vocabSize: number, specials: readonly string[]): Bpe {
  const tokens = [...specials, ...byteAlphabet()];
  const words = countWords(texts, specials.length);
  const pairs = new PairIndex(words);
  const merges: [string, string][] = [];
  while (tokens.length < vocabSize) {
    const best = pairs.best(tokens);
    if (!best) break;
    const [left, right] = best;
    merges.push([tokens[left], tokens[right]]);
    tokens.push(tokens[left] + tokens[right]);
    pairs.merge(left, right, tokens.length - 1);
  }
  return { vocab: new Map(tokens.map((token, id) => [token, id])), merges };
}

/** Splits a line as the ByteLevel pre-tokenizer does, the leading space added. */
export function splitWords(text: string): string[] {
  return (text.startsWith(' ') ? text : ` ${text}`).match(WORDS) ?? [];
}

/**
 * The printable character for each byte, in byte order: printable Latin-1 characters are unchanged, the others are
 * U+0100 ….
 */
export function byteAlphabet(): string[] {
  const plain = (byte: number) =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
  let shifted = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(plain(byte) ? byte : shifted++));
}

function countWords(texts: Iterable<string>, firstByte: number): Word[] {
  const counts = new Map<string, number>();
  for (const text of texts)
    for (const word of splitWords(text)) counts.set(word, (counts.get(word) ?? 0) + 1);
  return [...counts].map(([word, count]) => ({
    symbols: [...Buffer.from(word, 'utf8')].map((byte) => firstByte + byte),
    count,
  }));
}

/** Two token ids in one number. */
const SHIFT = 1 << 20;

/** Counts of adjacent pairs and the words that contain them, updated after each merge. */
class PairIndex {
  private readonly counts = new Map<number, number>();
  private readonly places = new Map<number, Set<number>>();

  constructor(private readonly words: Word[]) {
    words.forEach((_, w) => this.count(w, 1));
  }

  /** The most frequent pair that occurs at least twice. */
  best(tokens: readonly string[]): [left: number, right: number] | undefined {
    let best = -1;
    let most = 1;
    for (const [pair, count] of this.counts)
      if (count > most || (count === most && best >= 0 && before(pair, best, tokens)))
        [best, most] = [pair, count];
    return best < 0 ? undefined : unpack(best);
  }

  /** Replaces the pair by `token` in every word that has it. */
  merge(left: number, right: number, token: number): void {
    for (const w of [...(this.places.get(left * SHIFT + right) ?? [])]) {
      this.count(w, -1);
      this.words[w].symbols = replacePair(this.words[w].symbols, left, right, token);
      this.count(w, 1);
    }
  }

  private count(w: number, sign: 1 | -1): void {
    const { symbols, count } = this.words[w];
    for (let i = 0; i + 1 < symbols.length; i++) {
      const pair = symbols[i] * SHIFT + symbols[i + 1];
      const total = (this.counts.get(pair) ?? 0) + sign * count;
      if (total > 0) this.counts.set(pair, total);
      else this.counts.delete(pair);
      const places = this.places.get(pair);
      if (sign < 0) places?.delete(w);
      else if (places) places.add(w);
      else this.places.set(pair, new Set([w]));
    }
  }
}

function unpack(pair: number): [left: number, right: number] {
  return [Math.floor(pair / SHIFT), pair % SHIFT];
}

function before(a: number, b: number, tokens: readonly string[]): boolean {
  const text = (pair: number) =>
    unpack(pair)
      .map((id) => tokens[id])
      .join(' ');
  return text(a) < text(b);
}

function replacePair(symbols: number[], left: number, right: number, token: number): number[] {
  const out: number[] = [];
  for (let i = 0; i < symbols.length; i++) {
    if (symbols[i] === left && symbols[i + 1] === right) {
      out.push(token);
      i++;
    } else out.push(symbols[i]);
  }
  return out;
}

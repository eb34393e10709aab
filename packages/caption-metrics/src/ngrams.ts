/** The characters that Python's str.split() and str.strip() treat as white space, as a regular-expression class. */
const SPACES = '[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]+';
const SPACE = new RegExp(SPACES, 'u');
const OUTER = new RegExp(`^${SPACES}|${SPACES}$`, 'gu');

export const strip = (text: string) => text.replace(OUTER, '');

/** The words of a tokenised text. */
export function words(text: string): string[] {
  return text.split(SPACE).filter((word) => word !== '');
}

/** Counts of each n-gram of 1 … `longest` words, one map per length. */
export function countNgrams(tokens: readonly string[], longest = 4): Map<string, number>[] {
  return Array.from({ length: longest }, (_, n) => {
    const counts = new Map<string, number>();
    for (let i = 0; i + n < tokens.length; i++) {
      const gram = tokens.slice(i, i + n + 1).join(' ');
      counts.set(gram, (counts.get(gram) ?? 0) + 1);
    }
    return counts;
  });
}

export const mean = (values: readonly number[]) => values.reduce((sum, x) => sum + x, 0) / values.length;

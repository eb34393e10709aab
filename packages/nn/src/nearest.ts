/** Names like a misspelt one, for error messages. */

/** The `count` names closest to `wanted` by edit distance; for a dotted name, its closest sequence of parts counts. */
export function nearest(wanted: string, names: readonly string[], count = 3): string[] {
  return ranked(wanted, names)
    .slice(0, count)
    .map(({ name }) => name);
}

/** The name that was probably meant by `wanted`: few edits away, or one contains the other. */
export function probableName(wanted: string, names: readonly string[]): string | undefined {
  const [best] = ranked(wanted, names);
  if (best && best.distance <= Math.max(2, Math.floor(wanted.length / 3))) return best.name;
  return names.find((name) => wanted.length > 3 && (name.includes(wanted) || wanted.includes(name)));
}

function ranked(wanted: string, names: readonly string[]): { name: string; distance: number }[] {
  const word = wanted.toLowerCase().replace(/^\W+|\W+$|\\/g, ''); // strips the syntax of a regular expression
  return names
    .map((name) => ({ name, distance: Math.min(...runs(name, word).map((run) => editDistance(word, run))) }))
    .sort((a, b) => a.distance - b.distance);
}

/** All sequences of as many dotted parts of a name as `word` has; the whole name if it has fewer. */
function runs(name: string, word: string): string[] {
  const parts = name.toLowerCase().split('.');
  const length = Math.min(parts.length, word.split('.').length);
  return Array.from({ length: parts.length - length + 1 }, (_, at) => parts.slice(at, at + length).join('.'));
}

/** Levenshtein distance, one row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++)
      next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
    row = next;
  }
  return row[b.length];
}

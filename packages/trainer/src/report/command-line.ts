/** Words as one command line, quoted for a POSIX shell. */
export function commandLine(words: readonly string[]): string {
  return words.map(quoted).join(' ');
}

const quoted = (word: string) =>
  /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;

/** What is wrong with an adapter, its configuration or its targets: what was expected, what was found, what to do. */
export class AdapterError extends Error {
  override readonly name = 'AdapterError';
  /** Every single problem when the message lists several. */
  readonly problems: readonly string[];

  constructor(message: string, problems: readonly string[] = [message], options?: ErrorOptions) {
    super(message, options);
    this.problems = problems;
  }
}

/** Indented lines, abridged to one screen. */
export function list(lines: readonly string[], shown = 15): string {
  const head = lines.slice(0, shown).map((line) => `  ${line}`);
  if (lines.length > shown) head.push(`  … and ${lines.length - shown} more`);
  return head.join('\n');
}

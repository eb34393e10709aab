/** A problem with an adapter, its configuration or its targets. */
export class AdapterError extends Error {
  override readonly name = 'AdapterError';
  /** All problems; the message may list only the first ones. */
  readonly problems: readonly string[];

  constructor(message: string, problems: readonly string[] = [message], options?: ErrorOptions) {
    super(message, options);
    this.problems = problems;
  }
}

/** Indented lines, at most `shown` of them. */
export function list(lines: readonly string[], shown = 15): string {
  const head = lines.slice(0, shown).map((line) => `  ${line}`);
  if (lines.length > shown) head.push(`  … and ${lines.length - shown} more`);
  return head.join('\n');
}

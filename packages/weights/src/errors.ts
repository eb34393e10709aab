/** What is wrong with a weight file or table: names the file and tensor, what was expected and what was found. */
export class WeightsError extends Error {
  override readonly name = 'WeightsError';
  /** Every single problem, unabridged, when the message summarises a list. */
  readonly problems: readonly string[];

  constructor(message: string, problems: readonly string[] = [message], options?: ErrorOptions) {
    super(message, options);
    this.problems = problems;
  }
}

/** Text of an unknown thrown value, for the end of a message. */
export function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** A fault of a weight file or table; the message has the file, the tensor, what was expected and what was found. */
export class WeightsError extends Error {
  override readonly name = 'WeightsError';
  /** The complete list of problems if the message is abridged. */
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

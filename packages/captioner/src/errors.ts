/** The errors of a captioner; `name` says which one it is, as in a DOMException. */

export type ErrorName =
  /** The queue has no place; try again later. */
  | 'QueueFullError'
  /** The time limit of the request has passed. */
  | 'TimeLimitError'
  /** The worker ended while it had this request; others are not affected. */
  | 'WorkerCrashError'
  /** The captioner was closed. */
  | 'ClosedError'
  /** The model could not be loaded. */
  | 'LoadError'
  /** The picture cannot be read. */
  | 'ImageError'
  /** The computation itself failed, such as scores that are not numbers. */
  | 'ComputeError'
  /** An option, the question or the adapter is wrong. */
  | 'RequestError';

export class CaptionerError extends Error {
  override readonly name: ErrorName;

  constructor(name: ErrorName, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = name;
  }
}

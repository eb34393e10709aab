/** The tokens of a text while it is generated. */
import type { GeneratedText, TextToken } from './types';

export interface TextStream extends AsyncIterable<TextToken> {
  /** The whole text, once the loop has ended. */
  readonly result: Promise<GeneratedText>;
}

/**
 * Starts a request when the loop begins, and ends it when the loop is left.
 * @param outer the caller's signal
 */
export function stream(
  outer: AbortSignal | undefined,
  start: (signal: AbortSignal, onToken: (token: TextToken) => void) => Promise<GeneratedText>,
): TextStream {
  const leaving = new AbortController();
  const signal = outer ? AbortSignal.any([outer, leaving.signal]) : leaving.signal;
  let settle: { resolve: (text: GeneratedText) => void; reject: (error: unknown) => void };
  const result = new Promise<GeneratedText>((resolve, reject) => (settle = { resolve, reject }));
  result.catch(() => undefined); // the loop throws it

  async function* tokens(): AsyncGenerator<TextToken, void, void> {
    const arrived: TextToken[] = [];
    let wake = (): void => undefined;
    let done = false;
    const text = (async () => start(signal, (token) => (arrived.push(token), wake())))();
    text.then(settle.resolve, settle.reject);
    const ended = text.finally(() => {
      done = true;
      wake();
    });
    ended.catch(() => undefined);
    try {
      while (!done || arrived.length > 0) {
        while (arrived.length > 0) yield arrived.shift()!;
        if (!done) await new Promise<void>((resolve) => (wake = resolve));
      }
      await ended;
    } finally {
      leaving.abort();
    }
  }

  return { result, [Symbol.asyncIterator]: tokens };
}

/** The texts for a picture, while they are written. */
import { useEffect, useRef, useState } from 'preact/hooks';
import type { TriedWord, TryEvent } from '../../../src/api';
import { postLines } from '../server';

export interface TriedText {
  name: string;
  text: string;
  words: TriedWord[];
  /** whether it is whole, and its words have their maps */
  done: boolean;
}

export interface Tried {
  texts: readonly TriedText[];
  busy: boolean;
  error: string | undefined;
  /** Ends what is written for the picture before. */
  ask(picture: File, runs: readonly string[], question: string): void;
  stop(): void;
}

/** The server refuses larger ones, in the middle of the upload. */
const MOST_BYTES = 32 << 20;

export function useTried(): Tried {
  const [texts, setTexts] = useState<TriedText[]>([]);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string>();
  const asking = useRef<AbortController | undefined>(undefined);
  const stop = () => asking.current?.abort();
  useEffect(() => stop, []); // who leaves the view waits for nothing

  function ask(picture: File, runs: readonly string[], question: string): void {
    stop();
    const own = new AbortController();
    asking.current = own;
    setTexts(['base', ...runs].map((name) => ({ name, text: '', words: [], done: false })));
    setError(undefined);
    setBusy(true);
    const on = (event: TryEvent) => {
      if (own.signal.aborted) return;
      if (event.type === 'failed') setError(event.message);
      else setTexts((old) => old.map((text, i) => (i === event.text ? grown(text, event) : text)));
    };
    asked(picture, runs, question, own.signal, on)
      .catch((problem: Error) => own.signal.aborted || setError(problem.message))
      .finally(() => asking.current === own && setBusy(false));
  }
  return { texts, busy, error, ask, stop };
}

async function asked(
  picture: File,
  runs: readonly string[],
  question: string,
  signal: AbortSignal,
  on: (event: TryEvent) => void,
): Promise<void> {
  if (picture.size > MOST_BYTES) throw new Error('expected a picture of at most 32 MB, found a larger file');
  const query = new URLSearchParams(runs.map((name): [string, string] => ['run', name]));
  if (question !== '') query.set('question', question);
  await postLines(`try?${query.toString()}`, picture, signal, on);
}

function grown(old: TriedText, event: Exclude<TryEvent, { type: 'failed' }>): TriedText {
  if (event.type === 'text') return { ...old, text: event.said, words: event.words, done: true };
  const words = [...old.words];
  words[event.at] = event.word;
  return { ...old, words, text: words.map(({ text }) => text).join(' ') };
}

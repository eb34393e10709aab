/** The texts of models for a picture, while they are generated. */
import type { Captioner, TextToken } from '@blip2/captioner';
import type { TryEvent } from '../api';
import type { Captioners } from './captioners';
import type { TriedModel } from './models';
import { wordsOf } from './words';

interface Asked {
  /** of a picture's file */
  bytes: Uint8Array;
  question?: string;
  prompt?: string;
}

/** The words of all texts as they come. Cancelling it ends what is computed. @throws as `Captioners.use` */
export function triedTexts(
  captioners: Captioners,
  models: readonly TriedModel[],
  asked: Asked,
): ReadableStream<TryEvent> {
  const leaving = new AbortController();
  const { signal } = leaving;
  return new ReadableStream<TryEvent>({
    start(controller) {
      const send = (event: TryEvent) => signal.aborted || controller.enqueue(event);
      const texts = captioners.use(models, signal, (used) =>
        Promise.all(models.map((model, i) => writeText(used[i], model, asked, { i, signal, send }))),
      );
      texts.then(
        () => signal.aborted || controller.close(),
        (error: unknown) => {
          if (!signal.aborted) controller.error(error);
          leaving.abort(); // the other texts
        },
      );
    },
    cancel: () => leaving.abort(),
  });
}

async function writeText(
  captioner: Captioner,
  { adapter = 'base' }: TriedModel,
  { bytes, question, prompt }: Asked,
  { i, signal, send }: { i: number; signal: AbortSignal; send: (event: TryEvent) => void },
): Promise<void> {
  const options = { adapter, prompt, signal, attention_map: true };
  const streamed =
    question === undefined
      ? captioner.streamCaption(bytes, options)
      : captioner.streamAnswer(bytes, question, options);
  const tokens: TextToken[] = [];
  for await (const token of streamed) {
    tokens.push(token);
    if (token.text === '') continue; // the end, or a character that is incomplete
    const words = wordsOf(tokens);
    if (words.length > 0) send({ type: 'word', text: i, at: words.length - 1, word: words.at(-1)! });
  }
  const made = await streamed.result;
  const said = made.end === 'end_token' ? made.tokens.slice(0, -1) : made.tokens;
  send({ type: 'text', text: i, said: made.text, words: wordsOf(said) });
}

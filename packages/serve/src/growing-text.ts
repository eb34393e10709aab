/** A text that is sent in pieces, up to a stop string. */
import type { TextToken } from '@blip2/captioner';
import { logprobsOf, tokensOf } from './logprobs';
import { beforeStop } from './stop';

interface Piece {
  content: string;
  /** logprobs of its tokens, if they were asked for */
  more: object;
}

/** What is shown of a text while it grows, and the tokens of each piece: those that may belong to a stop string are held back. */
export function growingText(stops: readonly string[], logprobs: boolean) {
  let [all, sent] = ['', ''];
  let held: TextToken[] = [];
  const upTo = (shown: string, isEnd: boolean): Piece[] => {
    const content = shown.slice(sent.length);
    if (content === '' && !isEnd) return [];
    const before = all.length - held.reduce((sum, { text }) => sum + text.length, 0);
    const tokens = tokensOf(held, shown.slice(before));
    held = held.slice(tokens.length);
    sent = shown;
    if (content === '' && tokens.length === 0) return [];
    return [{ content, more: logprobs ? { logprobs: logprobsOf(tokens) } : {} }];
  };
  return {
    add(token: TextToken): Piece[] {
      all += token.text;
      held.push(token);
      return upTo(beforeStop(all, stops, true), false);
    },
    end: (text: string): Piece[] => upTo(beforeStop(text, stops), true),
  };
}

/** What came before the next token of a row, and whether its text has ended. */
import type { TextConfig } from '@blip2/nn';
import { ModelError } from './config';
import type { Settings } from './generate-options';
import type { Blip2 } from './model';
import type { History } from './score-rules';
import { endsWithStop } from './stop-strings';
import type { TokenBatch } from './tokens';

export type Prompt = Omit<History, 'fresh'>;

/** What the rules count as earlier tokens: the prompt, or, since an encoder reads it, the decoder's start token alone. */
export function promptRows(
  { config }: Blip2,
  { input_ids, attention_mask, shape: [B, T] }: TokenBatch,
): Prompt[] {
  const { decoder_start_token_id: first }: TextConfig = config.text_config;
  return Array.from({ length: B }, (_, b) => {
    if (first !== undefined) return { prompt: [first], start: 0 };
    const mask = attention_mask.subarray(b * T, (b + 1) * T);
    if (mask[T - 1] !== 1)
      throw new ModelError(`generate: row ${b} of the prompt ends with padding; pad prompts on the left`);
    return { prompt: [...input_ids.subarray(b * T, (b + 1) * T)], start: mask.indexOf(1) };
  });
}

/** Why a text ends with its last token: an end token, a completed stop string, or the last token allowed. */
export type TextEnd = 'end_token' | 'stop_string' | 'length';

/** Why a text ends with its last token; undefined if it goes on. */
export function endOf({ prompt, start }: Prompt, fresh: readonly number[], o: Settings): TextEnd | undefined {
  if (o.eos_token_id.includes(fresh[fresh.length - 1])) return 'end_token';
  const { tokenizer, stop_strings } = o;
  if (tokenizer && endsWithStop([...prompt.slice(start), ...fresh], stop_strings, tokenizer))
    return 'stop_string';
  return fresh.length >= o.max_new_tokens ? 'length' : undefined;
}

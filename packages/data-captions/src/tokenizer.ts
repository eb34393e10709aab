/** The tokenizer of a checkpoint from tokenizer.json, with Hugging Face's TypeScript tokenizers. */
import { Tokenizer as HfTokenizer } from '@huggingface/tokenizers';
import { DataError, reason, show } from './errors';
import type { Json } from './formats/row';
import type { AddedToken } from './gpt2-tokens';
import { withinTime } from './time-limit';

export interface Tokenizer {
  /** Ids of a text, with nothing added. Special tokens written in the text become their ids. */
  encode(text: string): number[];
  /** Text of ids. Ids outside the vocabulary (padding rows of the embedding) are skipped; `skipSpecial` drops special tokens. */
  decode(ids: readonly number[], skipSpecial: boolean): string;
  /** The id of a token of the vocabulary. */
  tokenId(token: string): number | undefined;
  /** The text of each special token by its id. */
  special: ReadonlyMap<number, string>;
}

/** The files of a tokenizer, as JSON. */
export interface TokenizerJson {
  /** tokenizer.json */
  tokenizer: Json;
  /** tokenizer_config.json; its clean_up_tokenization_spaces counts */
  config?: Json;
}

/**
 * The tokenizer of these files; `image` is the id of `<image>` in config.json.
 * @param where names the files in errors
 * @throws DataError for files that cannot be used
 */
export function makeTokenizer(
  { tokenizer: json, config = {} }: TokenizerJson,
  where: string,
  image?: number,
): Tokenizer {
  const added = addedTokens(json, where);
  if (image !== undefined && !added.some((t) => t.content === '<image>' || t.id === image)) {
    added.push({ id: image, content: '<image>', normalized: false, special: true });
  }
  const guard = guardFor(where, json);
  return guard(() => {
    const hf = new HfTokenizer({ ...json, added_tokens: added }, { ...config });
    const tokenizer = wrap(hf, config, where, guard);
    tokenizer.decode(tokenizer.encode(SAMPLE), true); // broken tokenizers fail only when used
    return tokenizer;
  });
}

/** A text with letters, punctuation, white space and multi-byte characters. */
const SAMPLE = 'Question: is it a cat, or\n 2 dogs? \u00e9\u732b';

function addedTokens({ added_tokens: tokens = [] }: Json, dir: string): AddedToken[] {
  const wrong = Array.isArray(tokens)
    ? tokens.find((t: Partial<AddedToken> | null) => !isId(t?.id) || typeof t?.content !== 'string')
    : tokens;
  if (wrong === undefined) return [...(tokens as AddedToken[])];
  throw new DataError(`${dir}: added_tokens: expected a list of {"id", "content"}, found ${show(wrong)}`);
}

const isId = (id: unknown) => Number.isSafeInteger(id) && (id as number) >= 0;

/** Calls the library. @throws DataError that names the folder, unlike the library's errors */
type Guard = <T>(work: () => T) => T;

/** Time limit for one text; it normally takes microseconds. */
const MOST_MS = 2000;

/** Guards calls of the library, with a time limit if the file contains regular expressions, which may never end. */
function guardFor(dir: string, { normalizer, pre_tokenizer, decoder }: Json): Guard {
  let limited: boolean | undefined;
  return (work) => {
    try {
      limited ??= JSON.stringify([normalizer, pre_tokenizer, decoder]).includes('"Regex"');
      return limited ? withinTime(MOST_MS, work) : work();
    } catch (error) {
      if (error instanceof DataError) throw error;
      throw new DataError(`${dir}: the tokenizer files cannot be used (${reason(error)})`);
    }
  };
}

function wrap(hf: HfTokenizer, config: Json, dir: string, guard: Guard): Tokenizer {
  const added = [...hf.get_added_tokens_decoder()];
  const special = new Map(added.filter(([, t]) => t.special).map(([id, t]) => [id, t.content]));
  const clean_up_tokenization_spaces = config.clean_up_tokenization_spaces === true;
  const idsOf = (text: string) => {
    const { ids } = guard(() => hf.encode(text, { add_special_tokens: false }));
    if (ids.every(isId)) return ids;
    throw new DataError(`${dir}: the tokenizer has no token for a part of ${show(text)}`);
  };
  return {
    special,
    tokenId: (token) => hf.token_to_id(token),
    encode: (text) => (text === '' ? [] : idsOf(text)),
    decode(ids, skipSpecial) {
      const known = ids.filter((id) => hf.id_to_token(id) !== undefined && !(skipSpecial && special.has(id)));
      if (known.length === 0) return '';
      return guard(() => hf.decode(known, { clean_up_tokenization_spaces }));
    },
  };
}

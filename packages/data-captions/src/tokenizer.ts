/**
 * The tokenizer of a checkpoint, with Hugging Face's TypeScript tokenizers: tokenizer.json, or the older
 * vocab.json + merges.txt (GPT-2's byte-level BPE), which are converted to the same structure.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Tokenizer as HfTokenizer } from '@huggingface/tokenizers';
import { DataError, reason, show } from './errors';
import type { Json } from './formats/row';
import { isRecord } from './formats/row';
import { gpt2Tokens } from './gpt2-tokens';
import type { AddedToken } from './gpt2-tokens';
import { readRegular } from './regular-file';
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

/** Loads the tokenizer of a checkpoint folder; `image` is the id of `<image>` in config.json. @throws DataError */
export async function loadTokenizer(dir: string, image?: number): Promise<Tokenizer> {
  const config = (await readJson(join(dir, 'tokenizer_config.json'), true)) ?? {};
  const file = join(dir, 'tokenizer.json');
  let json: Json;
  if (existsSync(file)) json = (await readJson(file)) as Json;
  else if (existsSync(join(dir, 'vocab.json'))) json = await legacyJson(dir, config, image);
  else {
    throw new DataError(
      `${dir}: no tokenizer: expected tokenizer.json, or vocab.json and merges.txt; copy them from the checkpoint's repository`,
    );
  }
  const added = addedTokens(json, dir);
  if (image !== undefined && !added.some((t) => t.content === '<image>' || t.id === image)) {
    added.push({ id: image, content: '<image>', normalized: false, special: true });
  }
  const guard = guardFor(dir, json);
  return guard(() => {
    const hf = new HfTokenizer({ ...json, added_tokens: added }, { ...config });
    const tokenizer = wrap(hf, config, dir, guard);
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

/** The largest tokenizer.json of a real model has some 30 MB. */
const MOST_BYTES = 200_000_000;

/** Reads a JSON object from a file. @throws DataError when it is missing (unless optional) or not a JSON object */
export async function readJson(file: string, optional = false): Promise<Json | undefined> {
  let text: string;
  try {
    text = (await readRegular(file, MOST_BYTES)).toString('utf8');
  } catch (error) {
    if (optional && !existsSync(file)) return undefined;
    throw new DataError(
      `${file}: cannot be read (${reason(error)}); copy it from the checkpoint's repository`,
    );
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new DataError(`${file}: expected JSON (${reason(error)}); the file may be cut off`);
  }
  if (!isRecord(value)) throw new DataError(`${file}: expected a JSON object, found ${show(value)}`);
  return value;
}

/** Converts vocab.json + merges.txt (GPT-2's byte-level BPE) to the content of tokenizer.json. */
async function legacyJson(dir: string, config: Json, image?: number): Promise<Json> {
  const vocab = (await readJson(join(dir, 'vocab.json'))) as Record<string, number>;
  const file = join(dir, 'merges.txt');
  let text: string;
  try {
    text = (await readRegular(file, MOST_BYTES)).toString('utf8');
  } catch (error) {
    throw new DataError(`${file}: cannot be read (${reason(error)}); vocab.json needs it in the same folder`);
  }
  const merges = text.split(/\r?\n/).filter((line) => line !== '' && !line.startsWith('#version'));
  const bad = merges.find((line) => line.split(' ').length !== 2);
  if (bad !== undefined) throw new DataError(`${file}: expected two pieces per line, found ${show(bad)}`);
  const files = {
    'tokenizer_config.json': config,
    'special_tokens_map.json': await readJson(join(dir, 'special_tokens_map.json'), true),
    'added_tokens.json': await readJson(join(dir, 'added_tokens.json'), true),
  };
  return {
    version: '1.0',
    added_tokens: gpt2Tokens(vocab, files, image),
    normalizer: null,
    pre_tokenizer: {
      type: 'ByteLevel',
      add_prefix_space: config.add_prefix_space === true,
      trim_offsets: true,
      use_regex: true,
    },
    post_processor: null,
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: { type: 'BPE', unk_token: null, vocab, merges: merges.map((line) => line.split(' ')) },
  };
}

/**
 * The added tokens of a GPT-2 tokenizer that consists of vocab.json and merges.txt. Reference:
 * `PreTrainedTokenizerBase._from_pretrained` and `TokenizersBackend.__init__` of transformers 5.23.
 */
import { DataError, show } from './errors';
import type { Json } from './formats/row';
import { isRecord } from './formats/row';

interface Token {
  content: string;
  special?: boolean;
  [other: string]: unknown;
}

export interface AddedToken extends Token {
  id: number;
}

/** The JSON files beside vocab.json, as far as they exist. */
export interface TokenFiles {
  'tokenizer_config.json': Json;
  'special_tokens_map.json'?: Json;
  'added_tokens.json'?: Json;
}

const END = '<|endoftext|>';
const NAMES = ['bos', 'eos', 'unk', 'sep', 'pad', 'cls', 'mask'].map((name) => `${name}_token`);

/**
 * The tokens that these files name. Where they name none, `<|endoftext|>` is special and everything else is text. A token
 * that vocab.json lacks has the next free id, in the files' order, as in transformers; `<|endoftext|>` does not take `image`,
 * the id of `<image>` in config.json.
 * @throws DataError for an entry that is no token
 */
export function gpt2Tokens(vocab: Record<string, number>, files: TokenFiles, image?: number): AddedToken[] {
  const { named, extra, listed } = namesIn(files);
  const names = new Set(named.map(({ content }) => content));
  const tokens = new Map<string, Token>();
  for (const token of [...listed, ...named, ...extra]) {
    if (tokens.has(token.content)) continue;
    tokens.set(token.content, { ...token, special: token.special === true || names.has(token.content) });
  }
  let next = Object.keys(vocab).length;
  return [...tokens.values()].map((token) => {
    const known = Object.hasOwn(vocab, token.content) ? vocab[token.content] : undefined;
    if (known === undefined && token.content === END && next === image) next++;
    const id = known ?? next;
    next = Math.max(next, id + 1);
    return { normalized: false, ...token, id };
  });
}

/** Tokens by name (such as eos_token), special tokens without a name, and tokens listed with their ids. */
function namesIn({
  'tokenizer_config.json': config,
  'special_tokens_map.json': map = {},
  'added_tokens.json': added = {},
}: TokenFiles): Record<'named' | 'extra' | 'listed', Token[]> {
  const decoder = config.added_tokens_decoder;
  const settings: Json = { bos_token: END, eos_token: END, unk_token: END, ...config, ...(!decoder && map) };
  const others = Object.keys(settings).filter((key) => key.endsWith('_token') && !NAMES.includes(key));
  const named = [...NAMES, ...others].filter(
    (key) => typeof settings[key] === 'string' || isRecord(settings[key]),
  );
  const extra = settings.extra_special_tokens ?? settings.additional_special_tokens;
  const ids: [content: unknown, id: unknown][] = isRecord(decoder)
    ? Object.entries(decoder).map(([id, token]) => [token, Number(id)])
    : Object.entries(added);
  return {
    named: named.map((key) => tokenOf(settings[key], key, true)),
    extra: Object.values(isRecord(extra) || Array.isArray(extra) ? extra : {}).map((token) =>
      tokenOf(token, 'extra_special_tokens', true),
    ),
    listed: ids
      .sort(([, a], [, b]) => Number(a) - Number(b))
      .map(([token]) => tokenOf(token, decoder ? 'added_tokens_decoder' : 'added_tokens.json', false)),
  };
}

function tokenOf(value: unknown, key: string, special: boolean): Token {
  if (typeof value === 'string' && value !== '') return { content: value, special };
  if (isRecord(value) && typeof value.content === 'string' && value.content !== '') {
    const { content, lstrip, rstrip, single_word, normalized } = value;
    return { content, lstrip, rstrip, single_word, normalized, special: value.special === true || special };
  }
  throw new DataError(`${key}: expected a token or {"content"}, found ${show(value)}`);
}

/**
 * The tokenizer files of a checkpoint folder: tokenizer.json, or the older vocab.json + merges.txt (GPT-2's byte-level BPE),
 * which are converted to the same structure.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { DataError, reason, show } from './errors';
import type { Json } from './formats/row';
import { isRecord } from './formats/row';
import { gpt2Tokens } from './gpt2-tokens';
import { readRegular } from './regular-file';
import type { Tokenizer } from './tokenizer';
import { makeTokenizer } from './tokenizer';

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
  return makeTokenizer({ tokenizer: json, config }, dir, image);
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

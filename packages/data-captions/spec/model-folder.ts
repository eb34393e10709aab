import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import type { TextIds } from '../src/processor';

/** GPT-2's printable characters for the 256 bytes, in byte order. */
export function byteAlphabet(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    return String.fromCharCode(printable ? byte : next++);
  });
}

const MERGES = ['Ġ a', 'c a', 'ca t', 'Ġ cat', 'd o', 'do g', 'Ġ dog', 'r e', 're d', 'Ġ red'];

/** Special ids of the folder below; the end token is the newline, as in Salesforce/blip2-opt-2.7b. */
export const ids = { pad: 1, bos: 2, image: 4, eos: 5 + 10 };

/** The content of vocab.json: five special tokens, 256 bytes, the merged pieces. */
export const vocab = Object.fromEntries(
  [
    '<s>',
    '<pad>',
    '</s>',
    '<unk>',
    '<image>',
    ...byteAlphabet(),
    ...MERGES.map((m) => m.replace(' ', '')),
  ].map((piece, id) => [piece, id]),
);

/** The value of blip2's `textIds` for this folder. */
export const TEXT_IDS: TextIds = {
  rows: 'causal',
  bos: ids.bos,
  eos: ids.eos,
  pad: ids.pad,
  imageToken: ids.image,
  numQueryTokens: 3,
};

/** The value of blip2's `textIds` for blip2/fixtures/tiny. */
export const TINY_IDS: TextIds = {
  rows: 'causal',
  bos: 2,
  eos: 31,
  pad: 1,
  imageToken: 58,
  numQueryTokens: 4,
};

export const preprocessor = {
  size: { height: 4, width: 6 },
  resample: 3,
  image_processor_type: 'BlipImageProcessor',
};

const folders: string[] = [];
afterAll(() => Promise.all(folders.map((dir) => rm(dir, { recursive: true }))));

/** An empty folder, removed after the tests of the file. */
export async function temporaryFolder(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'data-captions-'));
  folders.push(dir);
  return dir;
}

/** A folder with the files of a processor, with vocab.json and merges.txt, and OPT's special tokens. `replace` overrides or (undefined) omits files. */
export async function modelFolder(replace: Record<string, unknown> = {}): Promise<string> {
  const dir = await temporaryFolder();
  const files: Record<string, unknown> = {
    'preprocessor_config.json': preprocessor,
    'vocab.json': vocab,
    'merges.txt': `#version: 0.2\n${MERGES.join('\n')}\n`,
    'special_tokens_map.json': {
      bos_token: '</s>',
      eos_token: '</s>',
      unk_token: '<unk>',
      pad_token: '<pad>',
    },
    ...replace,
  };
  for (const [name, content] of Object.entries(files)) {
    if (content === undefined) continue;
    await writeFile(join(dir, name), typeof content === 'string' ? content : JSON.stringify(content));
  }
  return dir;
}

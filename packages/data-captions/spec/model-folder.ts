import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';

/** GPT-2's printable stand-ins of the 256 bytes, in byte order. */
export function byteAlphabet(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    return String.fromCharCode(printable ? byte : next++);
  });
}

const MERGES = ['Ġ a', 'c a', 'ca t', 'Ġ cat', 'd o', 'do g', 'Ġ dog', 'r e', 're d', 'Ġ red'];

/** Special ids of the folder below, in OPT's order; the end token is the newline, as in released checkpoints. */
export const ids = { pad: 1, bos: 2, image: 4, eos: 5 + 10 };

/** vocab.json's content: five special tokens, 256 bytes, the merged pieces. */
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

export const config = {
  model_type: 'blip-2',
  num_query_tokens: 3,
  image_token_index: ids.image,
  text_config: { model_type: 'opt', bos_token_id: 2, pad_token_id: 1, eos_token_id: ids.eos },
};

export const preprocessor = {
  size: { height: 4, width: 6 },
  resample: 3,
  image_processor_type: 'BlipImageProcessor',
};

const folders: string[] = [];
afterAll(() => Promise.all(folders.map((dir) => rm(dir, { recursive: true }))));

/** An empty folder that is removed after the tests of the file. */
export async function temporaryFolder(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'data-captions-'));
  folders.push(dir);
  return dir;
}

/** A folder with all that a processor needs (OPT's older tokenizer files). Files in `replace` win; undefined leaves one out. */
export async function modelFolder(replace: Record<string, unknown> = {}): Promise<string> {
  const dir = await temporaryFolder();
  const files: Record<string, unknown> = {
    'config.json': config,
    'preprocessor_config.json': preprocessor,
    'vocab.json': vocab,
    'merges.txt': `#version: 0.2\n${MERGES.join('\n')}\n`,
    ...replace,
  };
  for (const [name, content] of Object.entries(files)) {
    if (content === undefined) continue;
    await writeFile(join(dir, name), typeof content === 'string' ? content : JSON.stringify(content));
  }
  return dir;
}

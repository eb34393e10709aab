/** OPT's byte-level BPE with all 50,000 merges, from fixtures/gpt2-bpe (tools/parity/make_bpe_fixture.py). */
import { readFile } from 'node:fs/promises';
import { gunzipSync } from 'node:zlib';
import { byteAlphabet, modelFolder } from './model-folder';

const fixture = (name: string) => readFile(new URL(`../fixtures/gpt2-bpe/${name}`, import.meta.url));

interface Golden {
  /** OPT's ids of these pieces, from transformers' own tests */
  published: Record<string, number>;
  /** ids of transformers' tokenizer for each text */
  token_ids: Record<string, number[]>;
}
export const golden = JSON.parse((await fixture('golden.json')).toString()) as Golden;
const merges = gunzipSync(await fixture('merges.txt.gz')).toString();

/** Special tokens, bytes and merges in order, with each published piece moved to its id by a swap. */
function vocabulary(): Record<string, number> {
  const merged = merges.trimEnd().split('\n').slice(1);
  const specials = ['<s>', '<pad>', '</s>', '<unk>'];
  const pieces = [...specials, ...byteAlphabet(), ...merged.map((pair) => pair.replace(' ', ''))];
  const ids = new Map(pieces.map((piece, id) => [piece, id]));
  for (const [piece, id] of Object.entries(golden.published)) {
    const [previous, other] = [ids.get(piece)!, pieces[id]];
    [pieces[previous], pieces[id]] = [other, piece];
    ids.set(other, previous).set(piece, id);
  }
  return Object.fromEntries(ids);
}

/** A model folder with this vocabulary, in the files of a released checkpoint. */
export const optFolder = () => modelFolder({ 'vocab.json': vocabulary(), 'merges.txt': merges });

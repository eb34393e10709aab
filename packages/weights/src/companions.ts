/** The small files beside the weights of a model, for text, pictures and generation. */
import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { copySynced, makeFolders, syncFolder } from './staging';

/** InstructBLIP's tokenizer for its Q-Former. */
const SECOND_TOKENIZER = 'qformer_tokenizer';

/** Copies the files whose names match, also those of a second tokenizer. */
export async function copyFiles(from: string, to: string, names: RegExp): Promise<void> {
  for (const name of await readdir(from))
    if (names.test(name)) await copySynced(join(from, name), join(to, name));
  const [second, copy] = [from, to].map((dir) => join(dir, SECOND_TOKENIZER));
  if (!existsSync(second)) return;
  await makeFolders(copy);
  await copyFiles(second, copy, names);
  await syncFolder(copy);
}

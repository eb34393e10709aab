/** `blip2 pull`: downloads a model from the Hugging Face Hub into the cache that it shares with Python. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { loadConfig } from '@blip2/blip2/node';
import { loadRetrievalConfig } from '@blip2/retrieval/node';
import { isRetrievalModel } from '../retrieval';
import { pullModel } from '@blip2/weights/node';
import type { Pulled } from '@blip2/weights/node';
import { command } from '../options';
import type { Ui } from '../ui';
import { bytes } from '../ui';

interface PullFlags {
  revision: string;
  cacheDir?: string;
  verify?: boolean;
}

export function pullCommand(ui: Ui): Command {
  return command(
    'pull',
    'Download a model or adapter from the Hugging Face Hub; then its name can be used instead of a folder.',
    'blip2 pull Salesforce/blip2-opt-2.7b',
  )
    .argument('<id>', 'name on the Hub, ORG/NAME')
    .option('--revision <name>', 'branch, tag or commit', 'main')
    .option('--cache-dir <dir>', 'cache folder (default: HF_HUB_CACHE, else $HF_HOME/hub)')
    .option('--verify', 'compare cached files with their checksums, and download damaged ones again')
    .action((id: string, flags: PullFlags) => pull(id, flags, ui));
}

async function pull(id: string, flags: PullFlags, ui: Ui): Promise<void> {
  const { revision, cacheDir, verify } = flags;
  const { folder, commit, files } = await pullModel(id, {
    revision,
    cacheDir,
    verify,
    env: ui.io.env,
    beforeWeights: requireUsable,
    onMessage: (text) => ui.log(text),
    onProgress: ({ file, done, total }) =>
      ui.progress('pull', `${file}: ${bytes(done)} of ${bytes(total)}`, done === total),
  });
  ui.result(
    { id, revision, commit, folder, files },
    `${id} (${commit.slice(0, 7)}): ${summary(files)}\n${folder}`,
  );
}

/** @throws ModelError, before gigabytes are downloaded, for a model of another kind; adapters have no such config */
async function requireUsable(folder: string): Promise<void> {
  if (!existsSync(join(folder, 'config.json'))) return;
  await (isRetrievalModel(folder) ? loadRetrievalConfig(folder) : loadConfig(folder));
}

function summary(files: Pulled['files']): string {
  const fetched = files.filter((file) => file.fetched);
  const size = fetched.reduce((sum, file) => sum + file.size, 0);
  const verified = files.filter((file) => file.verified).length;
  const text = `${fetched.length} of ${files.length} files downloaded (${bytes(size)}), ${verified} checksums verified`;
  const unread = files.length - verified;
  return unread > 0 ? `${text}; ${unread} cached files not read (--verify reads them)` : text;
}

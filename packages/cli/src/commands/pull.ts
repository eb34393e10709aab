/** `blip2 pull`: downloads a model from the Hugging Face Hub into the cache that it shares with Python. */
import type { Command } from 'commander';
import { pullModel } from '@blip2/weights/node';
import { command } from '../options';
import type { Ui } from '../ui';
import { bytes } from '../ui';

interface PullFlags {
  revision: string;
  cacheDir?: string;
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
    .action((id: string, flags: PullFlags) => pull(id, flags, ui));
}

async function pull(id: string, { revision, cacheDir }: PullFlags, ui: Ui): Promise<void> {
  const { folder, commit, files } = await pullModel(id, {
    revision,
    cacheDir,
    env: ui.io.env,
    onProgress: ({ file, done, total }) =>
      ui.progress('pull', `${file}: ${bytes(done)} of ${bytes(total)}`, done === total),
  });
  const fetched = files.filter((file) => file.fetched);
  const size = fetched.reduce((sum, file) => sum + file.size, 0);
  ui.result(
    { id, revision, commit, folder, files },
    `${id} (${commit.slice(0, 7)}): ${fetched.length} of ${files.length} files downloaded (${bytes(size)}), checksums verified\n${folder}`,
  );
}

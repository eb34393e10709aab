/** `blip2 studio`: a local page for data, plans, runs and results. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startStudio } from '@blip2/studio';
import type { Command } from 'commander';
import { InvalidArgumentError } from 'commander';
import { withInterrupt } from '../interrupt';
import { command } from '../options';
import type { Ui } from '../ui';

interface StudioFlags {
  folder: string[];
  runs?: string;
  port: number;
}

const STOPPING = 'stopping; runs save a checkpoint (Ctrl-C again stops at once)';

export function studioCommand(ui: Ui): Command {
  return command(
    'studio',
    'Open a local page for data, plans, runs and results, in your browser.',
    'blip2 studio --folder . --runs runs',
  )
    .option('--folder <dir...>', 'folders with data, models and runs; it reads nothing outside of them', [
      '.',
    ])
    .option('--runs <dir>', 'folder of the runs, inside one of these (default: runs in the first)')
    .option('--port <n>', 'port on this machine; 0 takes any that is free', port, 4242)
    .action((flags: StudioFlags) => studio(flags, ui));
}

/** Serves until Ctrl-C. */
async function studio({ folder, runs, port }: StudioFlags, ui: Ui): Promise<void> {
  const command = [process.execPath, fileURLToPath(new URL('./bin.js', import.meta.url))];
  const server = await startStudio({
    folders: folder,
    runs: runs ?? join(folder[0], 'runs'),
    port,
    command,
  });
  ui.result({ url: server.url }, `studio is open at ${server.url}\nCtrl-C stops it`);
  await withInterrupt(ui, STOPPING, async (signal) => {
    await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    await server.close();
  });
}

function port(text: string): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value < 65_536) return value;
  throw new InvalidArgumentError(`Expected a number from 0 to 65535, found "${text}".`);
}

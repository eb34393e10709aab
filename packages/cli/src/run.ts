/** The `blip2` command as a function from arguments to an exit code. */
import { createRequire } from 'node:module';
import { Command } from 'commander';
import { answerCommand } from './commands/answer';
import { cacheCommand } from './commands/cache';
import { captionCommand } from './commands/caption';
import { compareCommand } from './commands/compare';
import { completionCommand, completionServerCommand } from './commands/completion';
import { dataCommand } from './commands/data';
import { doctorCommand } from './commands/doctor';
import { embedCommand } from './commands/embed';
import { evaluateCommand } from './commands/evaluate';
import { fitCommand } from './commands/fit';
import { importLavisCommand } from './commands/import-lavis';
import { inspectCommand } from './commands/inspect';
import { matchCommand } from './commands/match';
import { mcpCommand } from './commands/mcp';
import { mergeCommand } from './commands/merge';
import { planCommand } from './commands/plan';
import { pullCommand } from './commands/pull';
import { quantizeCommand } from './commands/quantize';
import { retrievalBaseCommand } from './commands/retrieval-base';
import { serveCommand } from './commands/serve';
import { studioCommand } from './commands/studio';
import { report } from './errors';
import type { Io } from './io';
import { processIo } from './io';
import { Ui } from './ui';

/**
 * Runs one command line.
 * @param argv arguments, without `node` and the script
 * @returns 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C or a signal
 */
export async function run(argv: string[], io: Io = processIo()): Promise<number> {
  const flags = argv.includes('--') ? argv.slice(0, argv.indexOf('--')) : argv;
  const ui = new Ui(io, flags.includes('--json'), argv);
  try {
    await program(ui).parseAsync(argv, { from: 'user' });
    return 0;
  } catch (error) {
    return report(error, ui, flags.includes('--verbose') || !!io.env.DEBUG);
  }
}

/** The commands with their options, to look at: for documents and tests. */
export function createProgram(io: Io = processIo()): Command {
  return program(new Ui(io, false));
}

function program(ui: Ui): Command {
  const { version } = createRequire(import.meta.url)('../package.json') as { version: string };
  const root = new Command('blip2')
    .description('Fine-tune BLIP-2 on your own images and use the result.')
    .version(version, '-v')
    .version(version)
    .exitOverride()
    .configureOutput({ writeOut: (text) => ui.write(text), writeErr: (text) => ui.error(text) })
    .showHelpAfterError('(--help shows the options and an example)')
    .addHelpText(
      'after',
      '\nExample:\n  $ blip2 fit --model models/blip2-emoji-mini --data data/emoji/people --preset lora',
    );
  const commands = [
    planCommand(ui),
    fitCommand(ui),
    captionCommand(ui),
    answerCommand(ui),
    serveCommand(ui),
    evaluateCommand(ui),
    matchCommand(ui),
    embedCommand(ui),
    compareCommand(ui),
    studioCommand(ui),
    mcpCommand(ui),
    inspectCommand(ui),
    dataCommand(ui),
    mergeCommand(ui),
    quantizeCommand(ui),
    pullCommand(ui),
    cacheCommand(ui),
    importLavisCommand(ui),
    retrievalBaseCommand(ui),
    doctorCommand(ui),
    completionCommand(ui),
  ];
  for (const command of commands) root.addCommand(inherit(command, root));
  root.addCommand(completionServerCommand(root, ui), { hidden: true });
  return root;
}

/** Copies the parent's settings to a command and its subcommands, which commander does not do in addCommand. */
function inherit(command: Command, parent: Command): Command {
  command.copyInheritedSettings(parent);
  for (const child of command.commands) inherit(child, parent);
  return command;
}

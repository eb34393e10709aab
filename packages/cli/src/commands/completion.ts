/** `blip2 completion`: prints a script that completes commands, options and files in a shell. */
import { createRequire } from 'node:module';
import type * as Tabtab from '@pnpm/tabtab';
import { Argument, Command } from 'commander';
import type { Option } from 'commander';
import type { Ui } from '../ui';

const SHELLS = ['bash', 'zsh', 'fish', 'pwsh'] as const;

/** What can follow the words of a command line; `files`: the shell adds names of files. */
export interface Completion {
  items: { name: string; description: string }[];
  files: boolean;
}

export function completionCommand(ui: Ui): Command {
  return new Command('completion')
    .description('Print a script for your shell that completes commands, options and files with the Tab key.')
    .addArgument(new Argument('<shell>', 'the shell').choices(SHELLS))
    .addHelpText('after', '\nExample:\n  $ blip2 completion bash >> ~/.bashrc')
    .action(async (shell: (typeof SHELLS)[number]) => {
      const quoted = [process.execPath, process.argv[1]].map((word) =>
        /\s/.test(word) ? `'${word}'` : word,
      );
      const completer = quoted.join(' ');
      ui.write(await tabtab().getCompletionScript({ name: 'blip2', completer, shell }));
    });
}

/** The command that the script of `blip2 completion` runs at each press of the Tab key. */
export function completionServerCommand(root: Command, ui: Ui): Command {
  return new Command('completion-server')
    .argument('[words...]', 'the command line')
    .action((words: string[]) => {
      const { log, logFiles, getShellFromEnv } = tabtab();
      const { items, files } = completionOf(root, words.slice(1));
      if (files) logFiles();
      else log(items, getShellFromEnv(ui.io.env), (line) => ui.io.stdout(`${line}\n`));
    });
}

/** CommonJS without named exports. It is loaded only when it is needed. */
const tabtab = () => createRequire(import.meta.url)('@pnpm/tabtab') as typeof Tabtab;

/** @param words after the name of the program; the last one is being typed and may be empty */
export function completionOf(root: Command, words: readonly string[]): Completion {
  const [before, current] = [words.slice(0, -1), words.at(-1) ?? ''];
  const command = before.reduce((parent, word) => childOf(parent, word) ?? parent, root);
  const option = command.options.find(({ short, long }) => [short, long].includes(before.at(-1) ?? ''));
  const found = option && (option.required || option.optional) ? valuesOf(option) : wordsOf(command, current);
  return { ...found, items: found.items.filter(({ name }) => name.startsWith(current)) };
}

const childOf = (command: Command, word: string) => command.commands.find((child) => child.name() === word);

function valuesOf({ argChoices, flags, description }: Option): Completion {
  const items = (argChoices ?? []).map((name) => ({ name, description: '' }));
  return { items, files: /<(dir|file|path)>/.test(flags) && !/\bHub\b/.test(description) };
}

function wordsOf(command: Command, current: string): Completion {
  const help = command.createHelp();
  if (current.startsWith('-')) {
    const options = help.visibleOptions(command);
    const items = options.map(({ long, short, description }) => ({ name: long ?? short ?? '', description }));
    return { items, files: false };
  }
  const children = command.commands.length > 0 ? help.visibleCommands(command) : [];
  const [first] = command.registeredArguments;
  const choices = (first?.argChoices ?? []).map((name) => ({ name, description: '' }));
  const items = children.map((child) => ({ name: child.name(), description: child.description() }));
  return { items: [...items, ...choices], files: first !== undefined && !first.argChoices };
}

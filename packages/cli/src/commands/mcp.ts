/** `blip2 mcp`: the Model Context Protocol on standard input and output, for coding assistants. */
import type { Command } from 'commander';
import type { McpFlags } from '../mcp/serve';
import { command } from '../options';
import type { Ui } from '../ui';

export function mcpCommand(ui: Ui): Command {
  return command(
    'mcp',
    'Let coding assistants use blip2: the Model Context Protocol on standard input and output.',
    'blip2 mcp --folder . --runs runs',
  )
    .option('--folder <dir...>', 'folders with data, models and runs; it reads nothing outside of them', [
      '.',
    ])
    .option('--runs <dir>', 'folder of the runs, inside one of these (default: runs in the first)')
    .action(async (flags: McpFlags) => {
      const { serveMcp } = await import('../mcp/serve'); // a fifth of the time in which the command starts
      await serveMcp(flags, ui);
    });
}

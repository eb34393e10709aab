/** Serves the protocol on standard input and output. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openWorkplace } from '@blip2/studio';
import { StdioServerTransport, serveStdio } from '@modelcontextprotocol/server/stdio';
import { withInterrupt } from '../interrupt';
import type { Ui } from '../ui';
import { createMcpServer } from './server';
import { openTexts } from './texts';

export interface McpFlags {
  folder: string[];
  runs?: string;
}

const STOPPING = 'stopping; runs save a checkpoint (Ctrl-C again stops at once)';

/** Serves until the client closes its end, or Ctrl-C. Nothing but the protocol is written to stdout. */
export async function serveMcp({ folder, runs }: McpFlags, ui: Ui): Promise<void> {
  const workplace = await openWorkplace({
    folders: folder,
    runs: runs ?? join(folder[0], 'runs'),
    command: [process.execPath, fileURLToPath(new URL('./bin.js', import.meta.url))],
  });
  const texts = openTexts(workplace);
  const transport = new StdioServerTransport();
  const server = serveStdio(() => createMcpServer(workplace, texts), {
    transport,
    onerror: ({ message }) => ui.log(`mcp: ${message}`),
  });
  ui.log('mcp: waiting for a client on standard input');
  try {
    await withInterrupt(ui, STOPPING, async (signal) => {
      const left = new Promise<void>((resolve) => process.stdin.once('close', resolve).once('end', resolve));
      const stopped = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
      await Promise.race([left, stopped]);
    });
  } finally {
    await server.close();
    await Promise.all([texts.close(), workplace.close()]);
  }
}

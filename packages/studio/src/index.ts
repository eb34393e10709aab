/** Studio: a local page for data, plans, runs and results of fine-tuning. */
import { createRequire } from 'node:module';
import type { Server } from 'node:http';
import { dirname, join, resolve } from 'node:path';
import { serve } from '@hono/node-server';
import { createApp } from './app';
import type { Studio } from './app';
import { dataView } from './data';
import { openFolders } from './folders';
import { newSecrets } from './guard';
import { openRuns } from './runs';
import { openCaptioners } from './try/captioners';
import type { WorkplaceOptions } from './workplace';

export type { JobRequest, RunState, RunSummary, Settings } from './api';
export { openWorkplace } from './workplace';
export type { Workplace, WorkplaceOptions, WorkplaceRun } from './workplace';

export interface StudioOptions extends WorkplaceOptions {
  /** 0 takes any free port */
  port: number;
  /** folder of the built page; default: the one of this package */
  page?: string;
  /** the captioner's program; default: its own */
  worker?: URL;
}

export interface RunningStudio {
  /** with the session, which a browser needs */
  url: string;
  /** Stops the runs, which save checkpoints, and the server. */
  close(): Promise<void>;
}

/** Milliseconds until a client that sends no headers, or no body, is disconnected. */
const SLOW = 15_000;
const MOST_CONNECTIONS = 256;

/**
 * Starts the server, on this machine's own addresses only.
 * @throws Error for a folder that is not there, runs outside of the folders, or a port that is taken
 */
export async function startStudio({ page, worker, port, ...options }: StudioOptions): Promise<RunningStudio> {
  const folders = await openFolders(options.folders);
  const runsDir = resolve(options.runs);
  const runs = await openRuns(runsDir, options.command, folders);
  const secrets = newSecrets();
  const jobs: Studio['jobs'] = new Map();
  const { command } = options;
  const captioners = openCaptioners(worker);
  const studio = {
    folders,
    captioners,
    data: dataView(folders),
    runs,
    runsDir,
    command,
    jobs,
    secrets,
    page: page ?? ownFile('page'),
  };
  const server = await listen(createApp(studio).fetch, port);
  const { port: own } = server.address() as { port: number };
  return {
    url: `http://127.0.0.1:${own}/?session=${secrets.session}`,
    close: async () => {
      for (const { job } of studio.jobs.values()) if (job.code === undefined) job.interrupt();
      server.closeAllConnections();
      await Promise.all([runs.close(), captioners.close(), new Promise((resolve) => server.close(resolve))]);
    },
  };
}

function listen(fetch: Parameters<typeof serve>[0]['fetch'], port: number): Promise<Server> {
  return new Promise((resolve, reject) => {
    const options = { headersTimeout: SLOW, requestTimeout: 2 * SLOW, connectionsCheckingInterval: 2000 };
    const server = serve({ fetch, port, hostname: '127.0.0.1', serverOptions: options }, () =>
      resolve(server),
    ) as Server;
    server.maxConnections = MOST_CONNECTIONS;
    server.on('drop', () => server.closeIdleConnections());
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        error.code === 'EADDRINUSE'
          ? new Error(`port ${port}: expected a free port, found one in use; choose another with --port`)
          : error,
      ),
    );
  });
}

/** A built file or folder of this package, wherever the caller is bundled. */
function ownFile(name: string): string {
  const { resolve } = createRequire(import.meta.url);
  return join(dirname(resolve('@blip2/studio/package.json')), 'dist', name);
}

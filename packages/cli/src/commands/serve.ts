/** `blip2 serve`: answers over HTTP. */
import { readFileSync } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import { createCaptioner } from '@blip2/captioner';
import { isLoopback, startServer } from '@blip2/serve';
import { adapterFolder, defaultCacheDir } from '@blip2/trainer';
import type { Command } from 'commander';
import { withBase } from '../base';
import { UsageError } from '../errors';
import { withInterrupt } from '../interrupt';
import { modelDir } from '../model';
import type { ModelFlags } from '../model';
import { backendOption, command, decodingOf, imageOptions, positive, precision, whole } from '../options';
import type { Ui } from '../ui';

interface ServeFlags extends Omit<ModelFlags, 'adapter'> {
  adapter?: string[];
  port: number;
  host: string;
  tokenFile?: string;
  hostName?: string[];
  origin?: string[];
  imageHost?: string[];
  maxBatch: number;
  maxQueue: number;
  timeLimit: number;
  maxPixels: number;
  grace: number;
}

/** @param worker the captioner's program, for tests */
export function serveCommand(ui: Ui, worker?: URL): Command {
  const serve = command(
    'serve',
    'Answer over HTTP: an OpenAI-compatible /v1/chat/completions, /caption and /answer. The model runs in a thread of its own.',
    'blip2 serve --model models/blip2-emoji-mini --adapter runs/emoji-demo/adapter --port 8000',
  );
  return imageOptions(serve)
    .option('--model <dir>', 'checkpoint folder; default: the base that the first adapter names')
    .option(
      '--adapter <name=dir...>',
      'adapters; their names are the models of requests, the first is the default (name: that of the run)',
    )
    .addOption(backendOption())
    .addOption(precision().default('auto'))
    .option('--port <n>', 'port; 0 takes a free one', whole, 8000)
    .option('--host <address>', 'address to listen on; one beyond this machine needs a token', '127.0.0.1')
    .option(
      '--token-file <file>',
      'file with the token of "Authorization: Bearer"; or the variable BLIP2_TOKEN',
    )
    .option(
      '--host-name <name...>',
      'names in the Host header; default: localhost, or any beyond this machine',
    )
    .option('--origin <origin...>', 'pages that may ask, such as https://example.com; default: none')
    .option('--image-host <host...>', 'hosts from which pictures may be fetched; default: none')
    .option('--max-batch <n>', 'requests that are computed together', positive, 8)
    .option('--max-queue <n>', 'requests that wait behind them; more get status 429', positive, 64)
    .option('--time-limit <seconds>', 'of a request, waiting included', positive, 120)
    .option('--max-pixels <n>', 'of a picture', positive, 50_000_000)
    .option('--grace <seconds>', 'that requests have to finish after Ctrl-C or SIGTERM', whole, 30)
    .action((flags: ServeFlags) => run(flags, ui, worker));
}

async function run(flags: ServeFlags, ui: Ui, worker: URL | undefined): Promise<void> {
  const adapters = namedAdapters(flags.adapter ?? []);
  const token = tokenOf(flags, ui);
  const [first] = Object.values(adapters);
  const { model } = await withBase({ model: flags.model, adapter: first }, ui);
  const captioner = await createCaptioner({
    ...{ model: modelDir(model), adapters, worker, backend: flags.backend, precision: flags.precision },
    ...{ max_batch: flags.maxBatch, max_queue: flags.maxQueue, time_limit_ms: 1000 * flags.timeLimit },
    ...{ ...decodingOf(flags), max_pixels: flags.maxPixels, cache_dir: defaultCacheDir() },
  });
  try {
    const server = await startServer(captioner, {
      ...{ port: flags.port, host: flags.host, token },
      ...{ hosts: flags.hostName, origins: flags.origin, image_hosts: flags.imageHost },
    });
    const { backend, precision, adapters: names } = captioner.info;
    ui.result({ url: server.url, backend, precision, models: names }, `listening on ${server.url}`);
    ui.log(`models: ${names.join(', ')} (${backend}, ${precision}); Ctrl-C ends the server`);
    const stopping = 'stopping when the present requests are done (Ctrl-C again stops at once)';
    await withInterrupt(ui, stopping, async (signal) => {
      if (!signal.aborted) await new Promise((done) => signal.addEventListener('abort', done));
      await server.close({ grace_ms: 1000 * flags.grace });
    });
  } finally {
    await captioner.close({ drain: false });
  }
}

/** Folders by name: `NAME=DIR`, or the name of the run that the folder lies in. @throws UsageError for a name that occurs twice */
function namedAdapters(given: readonly string[]): Record<string, string> {
  const named: Record<string, string> = {};
  for (const one of given) {
    const [, name, dir] = /^([\w.-]+)=(.+)$/.exec(one) ?? [];
    const folder = adapterFolder(dir ?? one);
    const own = name ?? nameOf(folder);
    if (Object.hasOwn(named, own))
      throw new UsageError(`--adapter: "${own}" occurs twice; name them NAME=DIR`);
    named[own] = folder;
  }
  return named;
}

const nameOf = (folder: string) => {
  const path = resolve(folder);
  return basename(path) === 'adapter' ? basename(dirname(path)) : basename(path);
};

/** The token is no option, because other users of a machine see command lines. */
function tokenOf({ tokenFile, host }: ServeFlags, ui: Ui): string | undefined {
  const token = tokenFile === undefined ? ui.io.env.BLIP2_TOKEN : readFileSync(tokenFile, 'utf8').trim();
  if (tokenFile !== undefined && !token) throw new UsageError(`--token-file: ${tokenFile} is empty`);
  if (!token && !isLoopback(host))
    throw new UsageError(
      `--host ${host}: a server that other machines reach needs a token: --token-file FILE, or BLIP2_TOKEN`,
    );
  return token || undefined;
}

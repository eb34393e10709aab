#!/usr/bin/env node
// node dist/bin.js --images 500000
import { parseArgs } from 'node:util';
import { BACKENDS, PRECISIONS } from '@blip2/nn';
import type { BackendName, Precision } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { pretrain } from './pretrain';
import type { PretrainOptions } from './options';

const HELP = `Pretrains the demo base from scratch. Needs no network. Ctrl-C saves; --resume goes on.

  node tools/emoji-base/dist/bin.js --images 500000

Options
  --images N        stop after N images                    default 500000
  --minutes M       or stop after M minutes of training
  --output DIR      the finished model                     default models/blip2-emoji-mini
  --run DIR         log, checkpoint, model so far          default runs/emoji-base
  --cache FILE      rendered images                        default data/emoji/base-64.bin
  --lr X            peak learning rate                     default 0.001
  --batch N         images per update                      default 48
  --lines N         English lines per update               default 16
  --seed N          default 0
  --backend NAME    auto, ${BACKENDS.join(', ')}    default auto
  --precision NAME  of matmuls: ${PRECISIONS.join(', ')}           default float32
  --eval-minutes M  between evaluations and checkpoints    default 5
  --log-every N     updates                                default 50
  --test            evaluate the test images once, at the end
  --resume          continue from the checkpoint in --run`;

class UsageError extends Error {}

const number = { type: 'string' } as const;

function parse(args: string[]) {
  const { values } = parseArgs({
    args,
    options: {
      images: number,
      minutes: number,
      output: { type: 'string', default: 'models/blip2-emoji-mini' },
      run: { type: 'string', default: 'runs/emoji-base' },
      cache: { type: 'string', default: 'data/emoji/base-64.bin' },
      lr: { ...number, default: '0.001' },
      batch: { ...number, default: '48' },
      lines: { ...number, default: '16' },
      seed: { ...number, default: '0' },
      backend: { type: 'string', default: 'auto' },
      precision: { type: 'string', default: 'float32' },
      'eval-minutes': { ...number, default: '5' },
      'log-every': { ...number, default: '50' },
      test: { type: 'boolean', default: false },
      resume: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  return values;
}

function positive(name: string, text: string, whole = false): number {
  const value = Number(text);
  if (!(value > 0 && Number.isFinite(value)) || (whole && !Number.isInteger(value)))
    throw new UsageError(`--${name}: expected a positive ${whole ? 'whole ' : ''}number, found "${text}"`);
  return value;
}

function toOptions(values: ReturnType<typeof parse>, signal: AbortSignal): PretrainOptions {
  const { images, minutes, output, run, cache, test, resume } = values;
  if (images !== undefined && minutes !== undefined)
    throw new UsageError('expected --images or --minutes, found both');
  const seed = Number(values.seed);
  if (!Number.isSafeInteger(seed) || seed < 0)
    throw new UsageError(`--seed: expected a whole number, found "${values.seed}"`);
  return {
    output,
    run,
    cache,
    test,
    resume,
    seed,
    signal,
    budget: minutes
      ? { minutes: positive('minutes', minutes) }
      : { images: positive('images', images ?? '500000', true) },
    batch: positive('batch', values.batch, true),
    lines: positive('lines', values.lines, true),
    lr: positive('lr', values.lr),
    evalMinutes: positive('eval-minutes', values['eval-minutes']),
    logEvery: positive('log-every', values['log-every'], true),
    note: (text) => console.error(text),
  };
}

async function main(args: string[]): Promise<void> {
  const values = parse(args);
  if (values.help) return console.log(HELP);
  const stop = new AbortController();
  const options = toOptions(values, stop.signal);
  for (const name of ['SIGINT', 'SIGTERM'] as const)
    process.once(name, () => {
      console.error(`${name}: saving after this update`);
      stop.abort();
    });
  const { backend, precision } = values as { backend: BackendName | 'auto'; precision: Precision };
  const { name, tried } = await useBackend(backend, { precision });
  options.note(`backend ${name}: ${tried.at(-1)?.why}`);
  await pretrain(options);
}

main(process.argv.slice(2)).catch((error: Error & { code?: string }) => {
  const usage = error instanceof UsageError || error.code?.startsWith('ERR_PARSE_ARGS');
  console.error(usage ? `${error.message}\n\n${HELP}` : `emoji-base: ${error.stack ?? error.message}`);
  process.exitCode = usage ? 2 : 1;
});

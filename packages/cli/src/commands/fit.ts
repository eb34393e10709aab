/** `blip2 fit`: fine-tunes a checkpoint on your images. */
import { basename, join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { Command } from 'commander';
import { openWorld } from '@blip2/distributed';
import type { OpenWorld } from '@blip2/distributed';
import {
  applyOverrides,
  chooseConfig,
  commandLine,
  fit,
  fitSchema,
  hasLora,
  PRESETS,
  RankError,
  readConfigFile,
  spread,
} from '@blip2/trainer';
import type { Choice, ChosenConfig, FitHooks, FitResult, SampleRow } from '@blip2/trainer';
import { readRegular } from '@blip2/weights/node';
import { withBase } from '../base';
import { Interrupted, Printed, UsageError } from '../errors';
import { SETTING_OPTIONS, settingsOf } from '../fit-options';
import { FitProgress } from '../fit-progress';
import { withInterrupt } from '../interrupt';
import { modelDir } from '../model';
import { command } from '../options';
import { logRunPlan } from '../plan';
import { paint } from '../printable';
import { describeFigures, paintTable } from '../results';
import type { Ui } from '../ui';
import { columns } from '../ui';

type FitFlags = Record<string, unknown> & {
  model?: string;
  adapter?: string;
  data?: string;
  output?: string;
  set?: string[];
  resume?: boolean;
  schema?: boolean;
  defaultConfig?: string;
};

const STOPPING =
  'stopping after this step and saving a checkpoint (Ctrl-C again stops at once, without saving)';

/** Samples printed at the end; the report shows more. */
const SAMPLES = 6;

export function fitCommand(ui: Ui): Command {
  const fitting = command(
    'fit',
    'Fine-tune a model on images with captions, or with questions and answers.',
    'blip2 fit --model models/blip2-emoji-mini --data data/emoji/people --preset lora --epochs 2',
  ).argument('[config]', 'YAML file with settings; options override it');
  for (const { option } of SETTING_OPTIONS) fitting.addOption(option);
  return fitting
    .option('--set <key=value>', 'any setting, such as lora.r=8 (may be repeated)', collect)
    .option('--resume', 'resume the run in --output (or of the config file) from its newest checkpoint')
    .option('--schema', 'print the JSON Schema of the settings and exit')
    .option('--default-config <file>', 'settings to use without a config file, --model and --data')
    .action((file: string | undefined, flags: FitFlags) =>
      flags.schema ? ui.result(fitSchema, JSON.stringify(fitSchema, null, 2)) : fitAction(file, flags, ui),
    );
}

const collect = (value: string, list: string[] = []) => [...list, value];

/** Milliseconds that the first process has for an error that all have; it then ends the others. */
const FIRST = 3000;

/** Started by mpirun or srun, all processes train together, and the first one prints. */
async function fitAction(file: string | undefined, flags: FitFlags, ui: Ui): Promise<void> {
  const world = await openWorld(ui.io.env);
  if (world.size > 1 && world.rank === 0) ui.log(describeWorld(world));
  try {
    await fitIn(world, file, flags, world.rank === 0 ? ui : ui.silenced());
  } catch (error) {
    if (error instanceof Interrupted) await world.close();
    if (world.rank > 0) throw await ofRank(world, error);
    throw error;
  }
  await world.close();
}

/** Open MPI binds each of two processes to one core, which a user of many cores must see. */
function describeWorld({ size, library, threads }: OpenWorld): string {
  const { own, cores } = threads!;
  return `${size} processes, ${library}; ${own} thread${own === 1 ? '' : 's'} each, ${cores} cores on this machine`;
}

/** What a process after the first one reports: an error of its own, and nothing that the first one reports. */
async function ofRank({ rank, size }: OpenWorld, error: unknown): Promise<Error> {
  if (error instanceof Interrupted || error instanceof RankError) return new Interrupted();
  await setTimeout(FIRST);
  const advice = 'If a checkpoint was saved, the same command with --resume goes on.';
  return new Printed(`process ${rank + 1} of ${size} failed: ${(error as Error).message}\n${advice}`);
}

async function fitIn(world: OpenWorld, file: string | undefined, flags: FitFlags, ui: Ui): Promise<void> {
  const { config, choices } = await resolveConfig(file, flags, ui);
  if (choices.length > 0) ui.log(describeChoices(choices));
  const named = flags.output !== undefined || file !== undefined;
  const result = await withInterrupt(ui, STOPPING, (signal) => {
    const progress = new FitProgress(ui);
    const hooks: FitHooks = {
      signal,
      resume: flags.resume,
      ifExists: named ? 'error' : 'number',
      command: ['blip2', ...ui.argv].join(' '),
      onMessage: (text) => ui.log(text.startsWith('warning: ') ? paint.yellow(text) : text),
      onPhase: (phase) => progress.phase(phase),
      onProgress: (step) => progress.step(step),
      onMetrics: (row) => progress.metrics(row),
      onSamples: (rows) => progress.samples(rows),
    };
    return fit(config, hooks, { world, onPlanned: (planned) => logRunPlan(planned, signal, ui) });
  });
  if (result.interrupted) throw new Interrupted(stoppedMessage(result));
  const samples = ui.json ? [] : await readSamples(result.output_dir);
  ui.result(result, () => describe(result, samples));
}

/**
 * Settings from the file, overridden by the options and then by --set; checked together. Without a file, the rest is chosen
 * from the data; a file is complete, except that the task may follow from the rows.
 */
async function resolveConfig(file: string | undefined, given: FitFlags, ui: Ui): Promise<ChosenConfig> {
  const named = file === undefined && given.adapter !== undefined && given.data !== undefined;
  const flags = named ? await withBase(given, ui) : given;
  const source = file ?? configOf(flags);
  const settings = source === undefined ? {} : await readConfigFile(source);
  const raw = applyOverrides({ ...settings, ...settingsOf(flags) }, flags.set ?? []);
  if (typeof raw.model === 'string') modelDir(raw.model);
  const only = source === undefined ? undefined : 'task';
  return chooseConfig(withoutLora(settings, raw), { where: source ?? 'options of blip2 fit', only });
}

/** What was chosen for the data, with the options that change it. */
function describeChoices(choices: Choice[]): string {
  const rows = choices.map(({ name, what, option }) => [`  ${name}`, what, paint.dim(option)]);
  return `chosen for this data; an option changes each, and config.yaml in the run folder has them all:\n${columns(rows)}`;
}

/** Drops the LoRA settings of a file if an option selects another preset, one without LoRA. */
function withoutLora(file: Record<string, unknown>, raw: Record<string, unknown>): Record<string, unknown> {
  const preset = PRESETS.find((name) => name === raw.preset);
  const dropLora = preset !== undefined && preset !== file.preset && !hasLora(preset);
  return dropLora && isDeepStrictEqual(raw.lora, file.lora) ? { ...raw, lora: undefined } : raw;
}

/** The config file to use if there is none on the command line. */
function configOf({ model, data, output, resume, defaultConfig }: FitFlags): string | undefined {
  if (model !== undefined && data !== undefined) return undefined;
  if (resume && output !== undefined) return join(output, 'config.yaml');
  if (model === undefined && data === undefined && defaultConfig !== undefined) return defaultConfig;
  const missing = [model === undefined && '--model', data === undefined && '--data'].filter(Boolean);
  throw new UsageError(`fit: expected a config file, or --model and --data; missing: ${missing.join(', ')}`);
}

function stoppedMessage({ steps, output_dir, resume }: FitResult): string {
  const status =
    steps > 0
      ? `stopped at step ${steps}; the checkpoint is in ${output_dir}`
      : 'stopped before the first step';
  return resume ? `${status}\ncontinue with: ${resume}` : status;
}

async function readSamples(dir: string): Promise<SampleRow[]> {
  const bytes = await readRegular(join(dir, 'samples.jsonl')).catch(() => '');
  const lines = bytes.toString().split('\n').filter(Boolean);
  const rows = lines.map((line) => JSON.parse(line) as SampleRow);
  return spread(rows, SAMPLES);
}

function describe(result: FitResult, samples: SampleRow[]): string {
  const { table, figures, verdict, saved, report, output_dir } = result;
  const paths = [
    [basename(saved ?? ''), saved],
    ['report', report],
    ['run folder', output_dir],
  ].flatMap(([name, path]) => (path === undefined ? [] : [`${paint.dim(name!.padEnd(16))} ${path}`]));
  return [
    '',
    ...(table && verdict?.headline !== 'cider_d' ? [paintTable(table), ''] : []),
    ...(figures ? [describeFigures(figures), ''] : []),
    ...samples.map((sample) => sampleLine(sample)),
    ...(samples.length ? [''] : []),
    ...paths,
    ...describeVerdict(result),
  ].join('\n');
}

/** The verdict, green only if the model learned, and what to do next. */
function describeVerdict({ verdict, next }: FitResult): string[] {
  if (!verdict) return [];
  const [first, ...rest] = verdict.sentences;
  const head = verdict.outcome === 'learned' ? paint.green(first) : paint.yellow(first);
  const command = next && `next: ${next.why}\n  ${commandLine(['npx', 'blip2', ...next.command])}`;
  return ['', head, ...rest, ...(command ? [command] : [])];
}

function sampleLine({ question, reference, before, after }: SampleRow): string {
  const correct = after.trim() === reference.trim();
  const prediction = correct
    ? paint.green(`✓ ${after}`)
    : `${paint.red(`✗ ${after || '(nothing)'}`)} ${paint.dim(`– expected: ${reference}`)}`;
  const prefix = question === undefined ? '' : `${paint.dim(question)} `;
  if (before === undefined) return prefix + prediction;
  return `${prefix}${prediction} ${paint.dim(`– before: ${before || '(nothing)'}`)}`;
}

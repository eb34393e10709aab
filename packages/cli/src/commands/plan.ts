/** `blip2 plan`: what each preset would take on this machine, before anything runs. */
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import {
  applyOverrides,
  chooseConfig,
  commentedYaml,
  fitSchema,
  hasLora,
  makePlan,
  PRESETS,
  readConfigFile,
  SCHEMA_FILE,
} from '@blip2/trainer';
import type { FitConfig, LeftOut, Plan } from '@blip2/trainer';
import { InvalidArgumentError } from 'commander';
import type { Command } from 'commander';
import { UsageError } from '../errors';
import { SETTING_OPTIONS, settingsOf } from '../fit-options';
import { modelDir } from '../model';
import { command, positive } from '../options';
import { describePlan, describeRun } from '../plan';
import { describeCluster } from '../plan-nodes';
import type { Ui } from '../ui';

type Raw = Record<string, unknown>;
type PlanFlags = Raw & {
  memory?: number;
  output?: string;
  set?: string[];
  nodes?: number;
  captions?: number;
  failures: number;
};

export function planCommand(ui: Ui): Command {
  const planning = command(
    'plan',
    'Memory, disk and time of each preset for a model, data and this machine; nothing is trained.',
    'blip2 plan --model models/blip2-emoji-mini --data data/emoji/people --output my-run.yaml',
  ).argument('[config]', 'YAML file with settings of fit; options override it');
  for (const { name, option } of SETTING_OPTIONS) if (name !== 'output_dir') planning.addOption(option);
  return planning
    .option(
      '--set <key=value>',
      'any setting of fit, such as lora.r=8 (may be repeated)',
      (value: string, list: string[] = []) => [...list, value],
    )
    .option('--memory <size>', 'plan for a machine with this memory, such as 16GB', memorySize)
    .option(
      '--output <file>',
      'write the settings of the recommended preset, or of --preset, as a commented file for fit',
    )
    .option('--nodes <n>', 'also plan the recommended run on 1, 2, 4 … n machines like this one', positive)
    .option('--captions <n>', 'with --nodes: also plan captions of so many pictures', positive)
    .option('--failures <rate>', 'with --nodes: failures of a node in 1,000 hours', rate, 0.2)
    .action((file: string | undefined, flags: PlanFlags) => planAction(file, flags, ui));
}

async function planAction(file: string | undefined, flags: PlanFlags, ui: Ui): Promise<void> {
  const { output, memory, nodes, captions, failures } = flags;
  if (captions !== undefined && nodes === undefined)
    throw new UsageError('--captions: expected --nodes with it, such as --nodes 8');
  if (output !== undefined && existsSync(output))
    throw new UsageError(
      `plan: expected a new file for --output, found ${output}; remove it, or choose another name`,
    );
  const settings = file === undefined ? {} : await readConfigFile(file);
  const own = { output: undefined, nodes: undefined, captions: undefined, failures: undefined };
  const given = settingsOf({ ...flags, ...own });
  const raw = applyOverrides({ ...settings, ...given }, flags.set ?? []);
  const missing = [!raw.model && '--model', !raw.data && '--data'].filter(Boolean);
  if (missing.length > 0) throw new UsageError(`plan: expected ${missing.join(' and ')}, or a config file`);
  const model = String(raw.model);
  if (!model.endsWith('.json')) modelDir(model);
  const { configs, wanted, left_out } = await configsOf(raw, file);
  const made = await makePlan(configs, {
    memory,
    wanted,
    cluster: nodes === undefined ? undefined : { nodes, failures, captions },
    onMessage: (text) => ui.log(text),
    onPhase: ({ name, done, total }) =>
      ui.progress(name, `${name}: ${Math.floor((100 * done) / total)} %`, done >= total),
  });
  const plan = { ...made, left_out: [...left_out, ...made.left_out] };
  const written = output === undefined ? undefined : await writeConfig(output, configs, plan, raw.preset);
  ui.result(
    { ...plan, ...(written && { written }) },
    () =>
      describePlan(plan) +
      (made.cluster ? `\n${describeCluster(made.cluster)}` : '') +
      (written ? `\n\n${writtenLine(output!, written)}` : ''),
  );
}

interface Wanted {
  configs: [FitConfig, ...FitConfig[]];
  /** the preset whose settings must be right */
  wanted: FitConfig['preset'];
  left_out: LeftOut[];
}

/** One config per preset, or of the one that is given, with what `fit` would choose. LoRA settings apply to presets with LoRA. */
async function configsOf(raw: Raw, file: string | undefined): Promise<Wanted> {
  const where = file ?? 'options of blip2 plan';
  const only = file === undefined ? undefined : 'task';
  const own = (await chooseConfig(raw, { where, only })).config;
  const wanted = own.preset;
  if (raw.preset !== undefined) return { configs: [own], wanted, left_out: [] };
  const configs: FitConfig[] = [];
  const left_out: LeftOut[] = [];
  for (const preset of PRESETS) {
    const lora = hasLora(preset) ? raw.lora : undefined;
    try {
      const other = { ...raw, preset, lora, adapter: undefined };
      configs.push(preset === wanted ? own : (await chooseConfig(other, { where, only })).config);
    } catch (error) {
      left_out.push({ preset, why: (error as Error).message });
    }
  }
  return { configs: configs as Wanted['configs'], wanted, left_out };
}

/** Writes the config of the given or the recommended preset, and returns the preset. */
async function writeConfig(
  file: string,
  configs: FitConfig[],
  { presets }: Plan,
  given: unknown,
): Promise<string> {
  const row = presets.find(({ preset, recommended }) =>
    given === undefined ? recommended !== undefined : preset === given,
  );
  if (!row)
    throw new Error(
      'plan: no preset fits this machine, so no settings were written; choose one with --preset',
    );
  const config = configs.find(({ preset }) => preset === row.preset)!;
  const why = row.recommended === undefined ? [] : [`${row.preset} is recommended: ${row.recommended}`];
  await writeFile(file, commentedYaml(config, [...why, ...describeRun(row).split('\n')]), { flag: 'wx' });
  const schema = join(dirname(file), SCHEMA_FILE);
  if (!existsSync(schema)) await writeFile(schema, JSON.stringify(fitSchema, null, 2) + '\n');
  return row.preset;
}

const writtenLine = (file: string, preset: string) =>
  `settings for ${preset} are in ${file}; train with: npx blip2 fit ${file}`;

function rate(text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && value >= 0 && Number.isFinite(value)) return value;
  throw new InvalidArgumentError(`Expected a number of at least 0, found "${text}".`);
}

const UNITS: Readonly<Record<string, number>> = {
  GB: 1e9,
  GIB: 2 ** 30,
  G: 1e9,
  MB: 1e6,
  MIB: 2 ** 20,
  M: 1e6,
};

function memorySize(text: string): number {
  const [, number, unit = 'GB'] = /^([\d.]+) ?([a-z]+)?$/i.exec(text) ?? [];
  const bytes = Number(number) * (UNITS[unit.toUpperCase()] ?? NaN);
  if (Number.isFinite(bytes) && bytes > 0) return bytes;
  throw new InvalidArgumentError(`Expected a size such as 16GB, found "${text}".`);
}

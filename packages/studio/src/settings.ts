/** Settings that come from the page, as arguments of the command. */
import { lstat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { layoutOf } from '@blip2/data-captions';
import { chooseConfig, commentedYaml, settings as known } from '@blip2/trainer';
import type { Setting } from '@blip2/trainer';
import type { ChosenSettings, DataPlace, JobRequest, Settings } from './api';
import type { Folders } from './folders';
import { isModelId } from '@blip2/weights/node';

/** A wrong setting. */
export class SettingsError extends Error {
  override name = 'SettingsError';
}

/** What the page may set. Paths are checked; folders for results and caches are not the page's to choose. */
const ALLOWED = [
  ...['model', 'data', 'task', 'preset', 'prompt', 'num_train_epochs', 'max_steps', 'learning_rate'],
  ...['per_device_train_batch_size', 'per_device_eval_batch_size', 'gradient_accumulation_steps', 'seed'],
  ...['precision', 'backend', 'sample_steps', 'logging_steps', 'eval_steps', 'save_steps', 'train_limit'],
  ...['eval_limit', 'controls', 'final_evaluation', 'skip_bad', 'parts_pattern', 'adapter', 'image_folder'],
  ...['image_column', 'caption_column', 'question_column', 'answer_column', 'cache_features'],
] as const;
const PATHS: readonly string[] = ['model', 'data', 'adapter', 'image_folder'];

/** Checked settings, with the real paths of what they name. @throws SettingsError, PathError */
export async function checkedSettings(given: unknown, folders: Folders): Promise<Settings> {
  if (typeof given !== 'object' || given === null) throw new SettingsError('expected settings, found none');
  const checked: Settings = {};
  for (const [name, value] of Object.entries(given) as [string, unknown][]) {
    if (value === '' || value === null || value === undefined) continue;
    const allowed = ALLOWED.find((one) => one === name);
    if (!allowed) throw new SettingsError(`${name.slice(0, 60)}: is no setting that can be changed here`);
    const { check }: Setting = known[allowed];
    if (!check.accepts(value))
      throw new SettingsError(
        `${name}: expected ${check.explain?.(value) ?? check.expected}, found ${JSON.stringify(value)}`,
      );
    checked[name] = PATHS.includes(name) ? await pathOf(String(value), folders) : (value as Settings[string]);
  }
  for (const name of ['model', 'data'])
    if (checked[name] === undefined) throw new SettingsError(`${name}: expected a path, found none`);
  return checked;
}

/** A path inside the folders. A model may also be a name on the hub, which `blip2 pull` has fetched. @throws PathError */
export async function pathOf(value: string, folders: Folders): Promise<string> {
  return folders.inside(value).catch(async (error: unknown) => {
    if (isModelId(value) && !(await isThere(value, folders))) return value;
    throw error;
  });
}

/** Whether a folder has the name, from where the commands or this process run: it would be taken before one of the hub. */
async function isThere(value: string, { roots }: Folders): Promise<boolean> {
  const found = await Promise.all(
    [resolve(roots[0], value), resolve(value)].map((path) => lstat(path).catch(() => undefined)),
  );
  return found.some((info) => info !== undefined);
}

/** Arguments of `blip2 fit` and `blip2 plan`. */
export function argumentsOf(settings: Settings): string[] {
  const { model, data, ...others } = settings;
  return [
    `--model=${model}`,
    `--data=${data}`,
    ...Object.entries(others).map(([name, value]) => `--set=${name}=${JSON.stringify(value)}`),
  ];
}

/** What `fit` would choose for these settings, and all of them as a file. */
export async function chosenFor(settings: Settings): Promise<ChosenSettings> {
  const { config, choices } = await chooseConfig({ ...settings });
  return { choices, yaml: commentedYaml(config, []) };
}

/** A data set with the real paths of its file and of the folder of its pictures. @throws SettingsError, PathError */
export async function checkedPlace(place: DataPlace, folders: Folders): Promise<DataPlace> {
  const { image_folder } = place;
  if (image_folder !== undefined && typeof image_folder !== 'string')
    throw new SettingsError('image_folder: expected a path');
  return {
    ...place,
    path: await folders.inside(place.path),
    image_folder: image_folder ? await folders.inside(image_folder) : undefined,
  };
}

/** Options of `blip2 data check` for the columns and pictures of a data set. */
export const layoutArguments = (place: DataPlace): string[] =>
  Object.entries(layoutOf(place)).flatMap(([name, value]) =>
    typeof value === 'string' && value !== '' ? [`--${name.replace('_', '-')}=${value}`] : [],
  );

/** Arguments of `blip2` for a check or a plan. @throws SettingsError, PathError */
export async function jobArguments(request: JobRequest, folders: Folders): Promise<string[]> {
  if (request?.kind === 'plan') {
    const memory =
      request.memory === undefined || request.memory === '' ? [] : [`--memory=${request.memory}`];
    return ['plan', '--json', ...argumentsOf(await checkedSettings(request.settings, folders)), ...memory];
  }
  if (request?.kind !== 'check' || typeof request.data?.path !== 'string')
    throw new SettingsError('expected a job of the kind check or plan');
  const model = request.model ? [`--model=${await folders.inside(request.model)}`] : [];
  const place = await checkedPlace(request.data, folders);
  return ['data', 'check', '--json', ...layoutArguments(place), ...model, '--skip-bad', '--', place.path];
}

/** The base model that an adapter names. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { adapterFolder, baseFolder } from '@blip2/trainer';
import { isModelId, readJsonFile } from '@blip2/weights/node';
import { UsageError } from './errors';
import type { Ui } from './ui';

/**
 * Adds the base that the adapter names if --model is missing, and prints it. A relative path is looked for from the working
 * folder, then from the adapter's folder and those above it.
 * @throws UsageError without both; Error for a base that is not here
 */
export async function withBase<F extends { model?: string; adapter?: string }>(
  flags: F,
  ui: Ui,
): Promise<F & { model: string }> {
  const { model, adapter } = flags;
  if (model !== undefined) return { ...flags, model };
  if (adapter === undefined)
    throw new UsageError(
      'expected --model, a checkpoint folder, or --adapter, which names its base; found neither',
    );
  const folder = adapterFolder(adapter);
  const config = await readJsonFile(join(folder, 'adapter_config.json')).catch(() => undefined);
  const name = (config as { base_model_name_or_path?: unknown } | undefined)?.base_model_name_or_path;
  if (typeof name !== 'string' || name === '')
    throw new UsageError(`${adapter}: names no base model in adapter_config.json; pass it as --model`);
  const found = existsSync(join(name, 'config.json')) ? name : baseFolder(name, folder);
  if (found === undefined) {
    const pull = isModelId(name) && !existsSync(dirname(name)) ? `fetch it: npx blip2 pull ${name}, or ` : '';
    throw new Error(`${adapter}: its base model ${name} is not here; ${pull}pass its folder as --model`);
  }
  ui.log(`base model: ${found}, which the adapter names`);
  return { ...flags, model: found };
}

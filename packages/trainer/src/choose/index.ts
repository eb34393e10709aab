/** A finished configuration from a model and data: `fit` itself chooses nothing. */
import type { FitConfig } from '../config';
import { parseConfig } from '../config';
import { withAdapter } from '../model/start-adapter';
import type { Choice, Raw } from './choose';
import { chooseSettings, chooseTask } from './choose';
import { readFacts } from './facts';

export type { Choice } from './choose';
export { chooseSettings } from './choose';
export { readFacts } from './facts';
export type { Facts } from './facts';
export { unlikelyToLearn } from './unlikely';

export interface ChosenConfig {
  config: FitConfig;
  /** what was chosen and why; settings that were given are not here */
  choices: Choice[];
}

/**
 * Checks settings and chooses what they leave open, from the data, the model and the free disk.
 * @param only `task` chooses nothing but the task, for settings that were complete before
 * @throws ConfigError as `parseConfig`, or for LoRA settings that contradict the adapter's; AdapterError; DataError if the data cannot be read
 */
export async function chooseConfig(
  given: Raw,
  { where = 'config', only }: { where?: string; only?: 'task' } = {},
): Promise<ChosenConfig> {
  const raw = await withAdapter(given, where);
  const config = parseConfig(raw, where);
  if (!config.data || (only && typeof raw.task === 'string')) return { config, choices: [] };
  const facts = await readFacts(raw);
  const { settings, choices } = (only ? chooseTask : chooseSettings)(raw, facts);
  return { config: parseConfig({ ...raw, ...settings }, where), choices };
}

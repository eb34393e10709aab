/** The options of `blip2 fit` that are settings of a run, as the table of settings declares them. */
import type { Setting } from '@blip2/trainer';
import { settings } from '@blip2/trainer';
import { InvalidArgumentError, Option } from 'commander';

/** In the order of the table; help names the choices. */
export const SETTING_OPTIONS = Object.entries<Setting>(settings).flatMap(([name, setting]) => {
  if (setting.flag === undefined) return [];
  const { check, flag, doc, help = doc.replaceAll('`', '') } = setting;
  const option = new Option(flag, 'enum' in check.schema ? `${help} (${check.expected})` : help);
  // an unknown preset is reported together with the settings that depend on it
  if (option.required && name !== 'preset') option.argParser((text) => valueOf(check, text));
  return [{ name, option }];
});

function valueOf(check: Setting['check'], text: string): unknown {
  const value = [text, Number(text)].find((one) => check.accepts(one));
  if (value !== undefined) return value;
  throw new InvalidArgumentError(`Expected ${check.explain?.(text) ?? check.expected}, found "${text}".`);
}

/** The settings that were given by their own options. @param flags commander's */
export function settingsOf(flags: Record<string, unknown>): Record<string, unknown> {
  const given = SETTING_OPTIONS.map(({ name, option }) => {
    const value = flags[option.attributeName()];
    return [name, option.negate && value === true ? undefined : value];
  });
  return Object.fromEntries(given.filter(([, value]) => value !== undefined));
}

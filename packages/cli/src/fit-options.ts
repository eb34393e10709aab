/** The options of `blip2 fit` that set one setting each, made from the trainer's table of settings. */
import type { Setting } from '@blip2/trainer';
import { settings } from '@blip2/trainer';
import { InvalidArgumentError, Option } from 'commander';
import { fractions } from './options';

/** In the order of the table; the help text lists the allowed values. */
export const SETTING_OPTIONS = Object.entries<Setting>(settings).flatMap(([name, setting]) => {
  if (setting.flag === undefined) return [];
  const { check, flag, doc, help = doc.replaceAll('`', '') } = setting;
  const option = new Option(flag, help);
  if (Array.isArray(check.schema.enum)) option.argChoices = check.schema.enum.map(String);
  // the trainer checks the preset, so that settings that depend on it are reported in the same error
  if (name === 'split_fractions') option.argParser(fractions);
  else if (option.required && name !== 'preset') option.argParser((text) => valueOf(check, text));
  return [{ name, option }];
});

function valueOf(check: Setting['check'], text: string): unknown {
  const value = [text, Number(text)].find((candidate) => check.accepts(candidate));
  if (value !== undefined) return value;
  throw new InvalidArgumentError(`Expected ${check.explain?.(text) ?? check.expected}, found "${text}".`);
}

/** The settings set by their own options. @param flags parsed by commander */
export function settingsOf(flags: Record<string, unknown>): Record<string, unknown> {
  const values = SETTING_OPTIONS.map(({ name, option }) => {
    const value = flags[option.attributeName()];
    return [name, option.negate && value === true ? undefined : value];
  });
  return Object.fromEntries(values.filter(([, value]) => value !== undefined));
}

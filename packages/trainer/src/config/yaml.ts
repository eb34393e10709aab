/** FitConfig as a file, and single settings from a command line. */
import { readRegular } from '@blip2/weights/node';
import { Document, parseDocument, stringify } from 'yaml';
import type { Scalar, YAMLMap } from 'yaml';
import { settings } from './settings';
import type { FitConfig } from './settings';
import { parseConfig } from './parse';
import { ConfigError } from './checks';

/** The JSON Schema beside a settings file, and the first line by which editors find it. */
export const SCHEMA_FILE = 'fit.schema.json';
export const SCHEMA_LINE = `# yaml-language-server: $schema=${SCHEMA_FILE}\n`;

/** The YAML text of a config; reading it back gives the same config. */
export function toYaml(config: FitConfig): string {
  return stringify(config, { lineWidth: 0 });
}

/** The same with the documentation of each setting above it, after a line for editors and `intro`. */
export function commentedYaml(config: FitConfig, intro: readonly string[]): string {
  const document = new Document(config);
  for (const { key } of (document.contents as YAMLMap<Scalar<string>>).items)
    key.commentBefore = ` ${settings[key.value as keyof FitConfig].doc}`;
  const about = intro.map((line) => `# ${line}\n`).join('');
  return `${SCHEMA_LINE}${about}\n${document.toString({ lineWidth: 0 })}`;
}

/**
 * A checked config from YAML (or JSON, which is YAML).
 * @throws ConfigError when the text is no YAML or a setting is unknown or wrong
 */
export function fromYaml(text: string, where = 'config'): FitConfig {
  return parseConfig(readYaml(text, where), where);
}

const MOST_BYTES = 2_000_000;

/** The settings as written, unchecked: for callers that apply options before `parseConfig`. */
export async function readConfigFile(file: string): Promise<Record<string, unknown>> {
  const bytes = await readRegular(file, MOST_BYTES).catch((error: NodeJS.ErrnoException) => {
    throw new ConfigError(file, [error.code === 'ENOENT' ? 'there is no such file' : error.message]);
  });
  const raw = readYaml(bytes.toString('utf8'), file) ?? {};
  if (typeof raw !== 'object' || Array.isArray(raw))
    throw new ConfigError(file, [`expected a mapping of settings, found ${JSON.stringify(raw)}`]);
  return raw as Record<string, unknown>;
}

function readYaml(text: string, where: string): unknown {
  const unreadable = (error: Error) => new ConfigError(where, [`not readable as YAML: ${error.message}`]);
  const document = parseDocument(text);
  const [problem] = [...document.errors, ...document.warnings];
  if (problem) throw unreadable(problem);
  try {
    const value: unknown = document.toJS();
    JSON.stringify(value);
    return value;
  } catch (error) {
    // too many aliases, or one inside the value it stands for
    throw unreadable(
      error instanceof TypeError ? new Error('it contains itself by an alias') : (error as Error),
    );
  }
}

/**
 * Settings with `key=value` pairs applied (`lora.r=8`, `lora.target_modules=[q_proj, v_proj]`); values
 * are read as YAML. The result is unchecked: pass it to `parseConfig`, so that a changed preset gets its defaults.
 */
export function applyOverrides(settings: object, pairs: string[]): Record<string, unknown> {
  const out = structuredClone(settings) as Record<string, unknown>;
  for (const pair of pairs) {
    const match = /^([A-Za-z_][\w.]*)=(.*)$/s.exec(pair);
    if (!match) throw new ConfigError(`--set ${pair}`, ['expected key=value, such as lora.r=8']);
    assign(out, match[1].split('.'), readYaml(match[2], `--set ${pair}`), pair);
  }
  return out;
}

function assign(record: Record<string, unknown>, path: string[], value: unknown, pair: string): void {
  const [key, ...rest] = path;
  if (key === '__proto__' || key === '') throw new ConfigError(`--set ${pair}`, ['expected key=value']);
  if (rest.length === 0) {
    record[key] = value;
    return;
  }
  const inner = record[key] ?? (record[key] = {});
  if (typeof inner !== 'object' || Array.isArray(inner))
    throw new ConfigError(`--set ${pair}`, [
      `${key} is a single value (${JSON.stringify(inner)}), it has no settings inside`,
    ]);
  assign(inner as Record<string, unknown>, rest, value, pair);
}

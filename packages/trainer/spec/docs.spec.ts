/** The tables of settings in docs/training.md are made from the schemas, the defaults and the comments of src. */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { PRESETS, schema } from '../src/config/settings';
import { defaultConfig } from '../src/config/defaults';
import { loraSchema } from '../src/config/lora';
import type { Check, ConfigSchema } from '../src/config/checks';

const read = (file: string) => readFileSync(new URL(file, import.meta.url), 'utf8');
const page = new URL('../../../docs/training.md', import.meta.url);

type Meanings = Map<string, string>;

/** What the comments above the fields between `begin` and `end` say. */
function meanings(source: string, begin: string, end: string): Meanings {
  const body = source.slice(source.indexOf(begin), source.indexOf(end, source.indexOf(begin)));
  const fields = body.matchAll(/ {2}\/\*\* (.*?) \*\/\n {2}'?(\w+)\??'?\??:/g);
  return new Map([...fields].map((match) => [match[2], match[1]]));
}

/** What a setting may be, in the words of its error. */
function expectation(rule: Check | ConfigSchema): string {
  if (typeof rule === 'function') return rule(NaN)!;
  if (rule === loraSchema) return 'a mapping, see below';
  const inner = Object.entries(rule).map(([key, check]) => `${key.replace('?', '')}: ${expectation(check)}`);
  return inner.join('; ');
}

function defaultOf(name: string): string {
  if (name === 'preset') return '`lora`';
  if (name === 'output_dir') return '`runs/` and the preset';
  const values = PRESETS.map((preset) => (defaultConfig(preset) as unknown as Record<string, unknown>)[name]);
  const [first] = values;
  if (values.some((value) => JSON.stringify(value) !== JSON.stringify(first)) && typeof first !== 'object')
    return 'by preset';
  if (first === undefined || first === '') return '–';
  if (typeof first !== 'object') return `\`${String(first)}\``;
  return Object.entries(first as object).map(([key, value]) => `\`${key}: ${String(value)}\``).join(', '); // prettier-ignore
}

function loraDefault(name: string): string {
  const value = (defaultConfig('lora').lora as unknown as Record<string, unknown>)[name];
  return value === undefined ? '–' : `\`${String(value)}\``;
}

function table(schema: ConfigSchema, says: Meanings, defaultOf: (name: string) => string): string {
  const cell = (text: string) => text.replaceAll('|', '\\|');
  const rows = Object.entries(schema).map(([key, rule]) => {
    const name = key.replace('?', '');
    const meaning = says.get(name) ?? 'NO COMMENT';
    return `| \`${name}\` | ${defaultOf(name)} | ${cell(expectation(rule))} | ${cell(meaning)} |`;
  });
  return ['| setting | default | expects | what it does |', '| --- | --- | --- | --- |', ...rows].join('\n');
}

it.each([
  [
    'settings',
    () =>
      table(
        schema,
        meanings(read('../src/config/settings.ts'), 'export interface FitConfig', '\n}'),
        defaultOf,
      ),
  ],
  ['lora', () => table(loraSchema, meanings(read('../src/config/lora.ts'), 'export const loraSchema', '\n}'), loraDefault)], // prettier-ignore
])('docs/training.md lists every setting as it is: %s (BLIP2_UPDATE_DOCS=1 writes it)', (name, make) => {
  const text = readFileSync(page, 'utf8');
  const [BEGIN, END] = [`<!-- ${name}: begin -->`, `<!-- ${name}: end -->`];
  const at = { begin: text.indexOf(BEGIN), end: text.indexOf(END) };
  expect(at.begin).toBeGreaterThan(0);
  const made = `${BEGIN}\n\n<!-- prettier-ignore -->\n${make()}\n\n${END}`;
  const whole = text.slice(0, at.begin) + made + text.slice(at.end + END.length);
  if (process.env.BLIP2_UPDATE_DOCS) writeFileSync(page, whole);
  else expect(text).toBe(whole);
  expect(whole).not.toContain('NO COMMENT');
});

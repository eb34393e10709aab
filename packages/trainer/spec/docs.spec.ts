/** The table of settings in docs/training.md is made from the schema, the defaults and the comments of src/config.ts. */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { defaultConfig, PRESETS, schema } from '../src/config';
import type { Check, ConfigSchema } from '../src/config-schema';

const source = readFileSync(new URL('../src/config.ts', import.meta.url), 'utf8');
const page = new URL('../../../docs/training.md', import.meta.url);
const [BEGIN, END] = ['<!-- settings: begin -->', '<!-- settings: end -->'];

/** What the comments above the fields of FitConfig say. */
function meanings(): Map<string, string> {
  const body = /export interface FitConfig \{\n(.*?)\n\}/s.exec(source)![1];
  const fields = body.matchAll(/ {2}\/\*\* (.*?) \*\/\n {2}(\w+)\??:/g);
  return new Map([...fields].map((match) => [match[2], match[1]]));
}

/** What a setting may be, in the words of its error. */
function expectation(rule: Check | ConfigSchema): string {
  if (typeof rule === 'function') return rule(NaN)!;
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

function table(): string {
  const says = meanings();
  const cell = (text: string) => text.replaceAll('|', '\\|');
  const rows = Object.entries(schema).map(([key, rule]) => {
    const name = key.replace('?', '');
    const meaning = says.get(name) ?? `NO COMMENT in src/config.ts`;
    return `| \`${name}\` | ${defaultOf(name)} | ${cell(expectation(rule))} | ${cell(meaning)} |`;
  });
  return ['| setting | default | expects | what it does |', '| --- | --- | --- | --- |', ...rows].join('\n');
}

it('docs/training.md lists every setting as it is (BLIP2_UPDATE_DOCS=1 writes it)', () => {
  const text = readFileSync(page, 'utf8');
  const at = { begin: text.indexOf(BEGIN), end: text.indexOf(END) };
  expect(at.begin).toBeGreaterThan(0);
  const made = `${BEGIN}\n\n<!-- prettier-ignore -->\n${table()}\n\n${END}`;
  const whole = text.slice(0, at.begin) + made + text.slice(at.end + END.length);
  if (process.env.BLIP2_UPDATE_DOCS) writeFileSync(page, whole);
  else expect(text).toBe(whole);
  expect(whole).not.toContain('NO COMMENT');
});

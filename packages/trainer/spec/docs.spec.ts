/** The tables of settings in docs/training.md, and the JSON Schema beside the recipes, are made from the settings. */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import type { Check } from '../src/config/checks';
import type { Fields } from '../src/config/fields';
import { defaultsOf, fieldsOf } from '../src/config/fields';
import { loraFields } from '../src/config/lora';
import { fitSchema, PRESETS, settings } from '../src/config/settings';

const page = new URL('../../../docs/training.md', import.meta.url);
const schemaFile = new URL('../../../recipes/fit.schema.json', import.meta.url);

/** What a setting may be, in the words of its error. */
function expectation(check: Check<unknown>): string {
  const fields = fieldsOf(check);
  if (!fields) return check.expected;
  if (fields === loraFields) return 'a mapping, see below';
  return Object.entries(fields)
    .map(([key, { check }]) => `${key}: ${expectation(check)}`)
    .join('; ');
}

/** Of each preset; one that is made of the preset's name is shown as such. */
function defaultOf(fields: Fields, name: string): string {
  const values = PRESETS.map((preset) => defaultsOf(fields, { preset })[name]);
  const [first] = values;
  if (values.every((value, i) => value === `runs/${PRESETS[i]}`)) return '`runs/` and the preset';
  if (typeof first === 'number' && values.some((value) => value !== first)) return 'by preset';
  if (first === undefined || first === '') return '–';
  if (typeof first !== 'object') return `\`${String(first)}\``;
  return Object.entries(first as object)
    .map(([key, value]) => `\`${key}: ${String(value)}\``)
    .join(', ');
}

function table(fields: Fields): string {
  const rows = Object.entries(fields).map(([name, { check, doc }]) => {
    const cells = [`\`${name}\``, defaultOf(fields, name), expectation(check), doc];
    return `| ${cells.map((text) => text.replaceAll('|', '\\|')).join(' | ')} |`;
  });
  return ['| setting | default | expects | what it does |', '| --- | --- | --- | --- |', ...rows].join('\n');
}

/** A text is what it is made from; BLIP2_UPDATE_DOCS=1 writes it. */
function expectMade(file: URL, made: string) {
  if (process.env.BLIP2_UPDATE_DOCS) writeFileSync(file, made);
  expect(readFileSync(file, 'utf8')).toBe(made);
}

it.each([
  ['settings', settings],
  ['lora', loraFields],
])('docs/training.md lists every setting as it is: %s (BLIP2_UPDATE_DOCS=1 writes it)', (name, fields) => {
  const text = readFileSync(page, 'utf8');
  const [begin, end] = [`<!-- ${name}: begin -->`, `<!-- ${name}: end -->`];
  const at = { begin: text.indexOf(begin), end: text.indexOf(end) };
  expect(at.begin).toBeGreaterThan(0);
  const made = `${begin}\n\n<!-- prettier-ignore -->\n${table(fields)}\n\n${end}`;
  expectMade(page, text.slice(0, at.begin) + made + text.slice(at.end + end.length));
});

it('recipes/fit.schema.json is what `blip2 fit --schema` prints (BLIP2_UPDATE_DOCS=1 writes it)', () => {
  expectMade(schemaFile, JSON.stringify(fitSchema, null, 2) + '\n');
});

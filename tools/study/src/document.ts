/** The files in docs that are made from the committed results: the tables of which-layers.md and the pictures. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { render } from '@blip2/bench';
import { checksOf } from './check';
import { DATA } from './data';
import { picture } from './picture';
import { summaryText } from './summary';
import type { Summary } from './summary';
import { tablesOf } from './tables';

export const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const DOCUMENT = 'docs/which-layers.md';
const FOLDER = 'docs/which-layers';
const RESULTS = `${FOLDER}/results.json`;
const COMMAND = 'npm run study';

export async function readSummary(root = ROOT): Promise<Summary> {
  return JSON.parse(await readFile(join(root, RESULTS), 'utf8')) as Summary;
}

export async function writeSummary(summary: Summary, root = ROOT): Promise<void> {
  await writeFile(join(root, RESULTS), summaryText(summary));
}

/** The text of each file that is made from the results, by its path. */
export async function documents(summary: Summary, root = ROOT): Promise<Map<string, string>> {
  const { date, machine } = summary;
  const tables = tablesOf(summary, checksOf(summary));
  const text = await readFile(join(root, DOCUMENT), 'utf8');
  const files = new Map([[DOCUMENT, render(text, { study: { command: COMMAND, date, machine, tables } })]]);
  for (const data of Object.values(DATA)) {
    const groups = summary.groups.filter((group) => group.data === data.name);
    if (groups.length > 0) files.set(`${FOLDER}/${data.name}.svg`, picture(data, groups));
  }
  return files;
}

export async function writeDocuments(summary: Summary, root = ROOT): Promise<void> {
  for (const [path, text] of await documents(summary, root)) await writeFile(join(root, path), text);
}

/** Every file in recipes/ is read as `fit` reads it, and runs for two steps: those of the demo on its base, others on a tiny one. */
import { existsSync, readdirSync } from 'node:fs';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseConfig, readConfigFile } from '../src/config';
import { fit } from '../src/fit';
import { TINY_MODEL, tinyJob } from './tiny';
import { TINY_RETRIEVAL } from './tiny-retrieval';

const folder = fileURLToPath(new URL('../../../recipes/', import.meta.url));
const demoBase = fileURLToPath(new URL('../../../models/blip2-emoji-mini', import.meta.url));
const recipes = readdirSync(folder).filter((name) => name.endsWith('.yaml'));

let root: string;
beforeEach(async () => void (root = await tinyJob()));
afterEach(async () => rm(root, { recursive: true }));

/** Eight pictures with what the demo's captions and questions look like. */
async function dataFor(task: 'caption' | 'vqa'): Promise<string> {
  const file = join(root, 'rows.jsonl');
  const captions = ['male cook', 'female cook, Fitzpatrick type 3', 'male judge', 'female judge'];
  const rows = [0, 1].flatMap((copy) =>
    captions.map((caption, i) => ({
      image: `train/${copy}-${i}.png`,
      ...(task === 'vqa' ? { question: 'male or female?', answer: caption.split(' ')[0] } : { caption }),
    })),
  );
  await writeFile(file, rows.map((row) => JSON.stringify(row)).join('\n'));
  return file;
}

describe.each(recipes)('recipes/%s', (name) => {
  it('says how it is run and what comes out, and names only what is there', async () => {
    const text = await readFile(join(folder, name), 'utf8');
    expect(text).toMatch(/^# yaml-language-server: \$schema=fit\.schema\.json\n# /);
    const header = text.slice(0, text.search(/^[^#]/m));
    expect(header).toMatch(/^# {3}((npx )?blip2 fit|npx nx run trainer:fit)/m);
    expect(header).toMatch(/Expected|Measured|Not measured/);
    for (const [, other] of header.matchAll(/recipes\/([\w-]+\.yaml)/g)) expect(recipes).toContain(other);
    parseConfig(await readConfigFile(join(folder, name)), name);
  });

  it('runs for two steps', async () => {
    const raw = await readConfigFile(join(folder, name));
    const ofDemo = raw.model === 'models/blip2-emoji-mini';
    const forRetrieval = raw.model === 'runs/search-base'; // which `blip2 retrieval-base` makes
    if (!ofDemo && !forRetrieval)
      expect(raw.model).toMatch(/^Salesforce\/(blip2-opt-[\d.]+b(-coco)?|instructblip-flan-t5-xl)$/); // a name on the hub
    const instructs = String(raw.model).includes('instructblip');
    const tiny = forRetrieval ? TINY_RETRIEVAL : instructs ? `${TINY_MODEL}-instructblip` : TINY_MODEL;
    const config = parseConfig({
      ...raw,
      ...{ model: ofDemo ? demoBase : tiny, backend: ofDemo ? 'auto' : 'cpu' },
      ...{ data: await dataFor(raw.task === 'vqa' ? 'vqa' : 'caption'), output_dir: join(root, 'run') },
      ...{ split_fractions: { validation: 0.25, test: 0.25 }, controls: false },
      ...{ max_steps: 2, per_device_train_batch_size: 2, gradient_accumulation_steps: 1 },
      ...{ eval_steps: 2, sample_steps: undefined, cache_dir: join(root, 'features') },
    });
    const result = await fit(config);
    expect(result).toMatchObject({ steps: 2, interrupted: false, table: { n: 2 } });
    expect(existsSync(result.saved!)).toBe(true);
  });
});

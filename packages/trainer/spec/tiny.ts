/** A tiny BLIP-2 job for the specs: the parity fixture's model and eight coloured squares in two splits. */
import { cp, mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openWeights, writeSafetensors } from '@blip2/weights/node';
import type { FitConfig } from '../src/config';
import { parseConfig } from '../src/config';
import { encodePng } from '../src/evaluation/png';

export const TINY_MODEL = fileURLToPath(new URL('../../blip2/fixtures/tiny', import.meta.url));

/** Colour and caption: two images per caption in training, four distinct captions. */
const SQUARES: [rgb: [number, number, number], caption: string][] = [
  [[220, 30, 30], 'a dog'],
  [[30, 200, 40], 'a cat'],
  [[40, 60, 220], 'on a mat'],
  [[240, 240, 240], 'the hat'],
];

/** Writes train/ (4 · `copies` images), validation/ and test/ (4 each), and returns the folder of all. */
export async function tinyJob(copies = 2): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), 'blip2-tiny-'));
  for (const [split, shift, count] of [
    ['train', 0, copies],
    ['validation', 7, 1],
    ['test', 11, 1],
  ] as const) {
    const rows: string[] = [];
    await mkdir(join(root, split));
    for (let copy = 0; copy < count; copy++)
      for (const [i, [rgb, text]] of SQUARES.entries()) {
        const file_name = `${copy}-${i}.png`;
        await writeFile(join(root, split, file_name), square(rgb, shift + 3 * copy));
        rows.push(JSON.stringify({ file_name, text }) + '\n');
      }
    await writeFile(join(root, split, 'metadata.jsonl'), rows.join(''));
  }
  return root;
}

/** A 32 × 32 square of one colour that fades to the right by `shift` levels. */
function square(rgb: [number, number, number], shift: number): Buffer {
  const pixels = Uint8Array.from({ length: 32 * 32 * 3 }, (_, i) => {
    const x = Math.floor(i / 3) % 32;
    return Math.max(0, rgb[i % 3] - (x % (shift + 1)));
  });
  return encodePng(pixels, 32, 32);
}

/** Copies the tiny model, with a vocabulary of so many words of which it knows the first: its output layer is large. */
export async function withVocabulary(to: string, words: number): Promise<void> {
  await cp(TINY_MODEL, to, { recursive: true });
  const config = JSON.parse(await readFile(join(to, 'config.json'), 'utf8')) as {
    text_config: { vocab_size: number };
  };
  config.text_config.vocab_size = words;
  await writeFile(join(to, 'config.json'), JSON.stringify(config));
  const reader = await openWeights(TINY_MODEL);
  const tensors = await Promise.all(
    [...reader.entries.values()].map(async ({ name, shape }) => {
      const values = await reader.readFloat32(name);
      const ofWords = /embed_tokens|lm_head/.test(name);
      const data = ofWords ? new Float32Array(words * shape[1]) : values;
      data.set(values);
      return { name, dtype: 'F32' as const, shape: ofWords ? [words, shape[1]] : shape, data };
    }),
  );
  await writeSafetensors(join(to, 'model.safetensors'), tensors);
  await reader.close();
}

export function tinyConfig(root: string, given: Record<string, unknown> = {}): FitConfig {
  return parseConfig({
    model: TINY_MODEL,
    data: root,
    output_dir: join(root, 'run'),
    cache_dir: join(root, 'features'),
    backend: 'cpu',
    learning_rate: 0.02,
    num_train_epochs: 4,
    per_device_train_batch_size: 3,
    logging_steps: 2,
    save_total_limit: 9,
    generation: { max_new_tokens: 8, num_beams: 1 },
    ...given,
  });
}

/** The rows of a JSON-lines file. */
export async function jsonLines<T>(file: string): Promise<T[]> {
  const text = await readFile(file, 'utf8');
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as T);
}

/** The rows of metrics.jsonl without their times. */
export async function courseOf(dir: string) {
  const rows = await jsonLines<Record<string, number>>(join(dir, 'metrics.jsonl'));
  return rows.map((row) =>
    Object.fromEntries(Object.entries(row).filter(([name]) => !name.includes('second'))),
  );
}

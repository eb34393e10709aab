/** The first run on own pictures, with no option but --model and --data. The pictures are drawn. */
import { execFileSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { FitResult } from '@blip2/trainer';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cli } from '../spec/testing';

const DRAW = fileURLToPath(new URL('../../../recipes/drawings/draw.mjs', import.meta.url));
const MODEL = dirname(
  fileURLToPath(new URL('../../../models/blip2-emoji-mini/config.json', import.meta.url)),
);

let root: string;
beforeAll(async () => void (root = await mkdtemp(join(tmpdir(), 'blip2-own-'))));
afterAll(async () => rm(root, { recursive: true }));

/** Draws pictures and fits on them. */
async function firstRun(name: string, draw: string[], ...more: string[]) {
  const data = join(root, name);
  execFileSync(process.execPath, [DRAW, data, ...draw]);
  const args = [
    'fit',
    '--precision',
    'float32',
    '--model',
    MODEL,
    '--data',
    data,
    '--output',
    join(root, `run-${name}`),
  ];
  const cache = ['--set', `cache_dir=${join(root, 'features')}`];
  const { code, out, err } = await cli([...args, ...cache, ...more, '--json']);
  expect(err).not.toContain('error:');
  expect(code).toBe(0);
  return { result: JSON.parse(out) as FitResult, err };
}

describe('the first run on 60 drawn pictures', () => {
  it('learns captions from text files, and the verdict names a command that works', async () => {
    const { result, err } = await firstRun('captions', []);
    for (const choice of ['splits', 'steps', 'learning rate', 'evaluation', 'feature cache'])
      expect(err).toMatch(new RegExp(`^  ${choice} .* --`, 'm'));
    expect(err).not.toContain('warning:');
    expect(err.match(/^(?:before training|after step \d+):\n(?: {2}\d+\.png: .+\n){4}/gm)).toHaveLength(5);
    expect(result.figures!.captions!.cider_d).toBeGreaterThan(2);
    // ten pictures show that it learned; whether it looks at them may stay unclear, as rounding decides some captions
    const { outcome, headline, pictures, sentences } = result.verdict!;
    expect({ headline, pictures }).toEqual({ headline: 'cider_d', pictures: 10 });
    expect(['learned', 'unclear']).toContain(outcome);
    expect(sentences[0]).toMatch(/^learned/);
    const picture = join(root, 'captions', '001.png');
    const caption = await cli(['caption', picture, '--model', MODEL, '--adapter', result.saved!]);
    expect(caption.code).toBe(0);
    expect(caption.out).toMatch(/^a \w+ \w+ /);
    expect((await cli(result.next!.command)).code).toBe(0);
  }, 240_000);

  it('learns answers without another option', async () => {
    const { result, err } = await firstRun('questions', ['--questions']);
    expect(err).toMatch(/task +vqa, because the rows have questions/);
    expect(result.verdict).toMatchObject({ outcome: 'learned', headline: 'accuracy', pictures: 10 });
    expect((await cli(result.next!.command)).code).toBe(0);
  }, 240_000);
});

describe('the first run on 12 drawn pictures', () => {
  it('announces what cannot be expected before it starts', async () => {
    const { result, err } = await firstRun('few', ['--count', '12'], '--epochs', '1');
    const begin = err.slice(0, err.indexOf('loading model'));
    expect(begin).toMatch(/warning: 2 optimizer steps: .* --epochs 150 /);
    expect(begin).toMatch(/warning: 12 pictures for training: .* by heart/);
    expect(begin).toMatch(/warning: no held-out pictures/);
    expect(result.verdict).toMatchObject({ outcome: 'unclear', pictures: 0 });
  }, 240_000);
});

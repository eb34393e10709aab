import { mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { defaultConfig, toYaml } from '../config';
import { fillRun } from '../../spec/run-folder';
import { html } from './html';
import { writeReport } from './index';
import { shotsOf } from './pictures';
import type { SampleRow } from './run-files';
import { spread } from './spread';
import { logTicks, ticks } from './ticks';

let dir: string;
beforeEach(async () => {
  dir = join(await mkdtemp(join(tmpdir(), 'report-')), 'pets');
});

/** The page without its style and script. */
async function bodyOf(run: string): Promise<string> {
  const page = await readFile(await writeReport(run), 'utf8');
  return page.slice(page.indexOf('<main>'), page.indexOf('</main>'));
}

describe('writeReport', () => {
  it('shows verdict, results, curves, samples and settings in one file without outside assets', async () => {
    await fillRun(dir);
    const page = await readFile(await writeReport(dir), 'utf8');
    for (const text of [
      '<b>Learned</b>',
      '47.5 %',
      'nearest neighbour',
      '12.5 %',
      'PeftModel',
      'lora_alpha: 32',
    ])
      expect(page).toContain(text);
    expect(page).toContain('aria-label="Loss: training from 4 at 10 to 0.1 at 100; validation from');
    expect(page).toContain('Gradient norm');
    expect(page).toContain('data:image/webp;base64,');
    expect(page).not.toMatch(/(?:src|href)="(?!data:|#)/);
    expect(page).toContain('default-src &#39;none&#39;; img-src data:;');
    expect(page).toContain('Copyright (c) 2022 Leon Sorokin');
  });

  it('has one format for numbers, and one name for a condition', async () => {
    await fillRun(dir);
    const text = (await bodyOf(dir)).replace(
      /data-chart="[^"]*"|style="[^"]*"|<svg.*?<\/svg>|<details>.*$/gs,
      '',
    );
    expect(text).not.toMatch(/white picture|another picture/);
    expect(text).not.toMatch(/[^\d]\.\d|\d\.\d{2,} %/);
  });

  it('has all rows, the worst first, with right and wrong in words', async () => {
    await fillRun(dir);
    const body = await bodyOf(dir);
    expect(body.match(/class="is-right"/g)).toHaveLength(2);
    expect(body.match(/class="is-wrong"/g)).toHaveLength(2);
    expect(body.indexOf('(nothing)')).toBeLessThan(body.indexOf('class="is-right"'));
    expect(body).toContain('no picture');
    expect(body).toContain('<u>fish</u>');
  });

  it('lists what was confused with what', async () => {
    await fillRun(dir);
    expect((await bodyOf(dir)).replace(/\s+/g, ' ')).toMatch(
      /3 ×<\/span> <bdi class="wrong">dog<\/bdi> <span class="soft">instead of<\/span> <bdi>cat<\/bdi>/,
    );
  });

  it('has the texts of a few pictures during training', async () => {
    await fillRun(dir, { finished: false });
    expect((await bodyOf(dir)).replace(/<[^>]*>|\s+/g, ' ')).toMatch(
      /reference +an owl +before training +text 0 +step 50 +text 50 +step 100 +text 100/,
    );
  });

  it('escapes what comes from data and settings', async () => {
    await fillRun(dir);
    const body = await bodyOf(dir);
    expect(body).toContain('data/&lt;pets&gt;');
    expect(body).toContain('a &lt;b&gt;cat&lt;/b&gt;');
    expect(body).toContain('&lt;/script&gt;&lt;script&gt;alert(1)');
    expect(body).toContain('\\u202egnp.exe');
    expect(body).not.toMatch(/<b>cat|<script|\u202e|<img[^>]*onerror/);
  });

  it('writes what is there when a run stopped early', async () => {
    await fillRun(dir, { finished: false });
    const page = await bodyOf(dir);
    expect(page).toContain('Repeat it');
    expect(page).not.toContain('<h2>Results');
    expect(page).not.toContain('<h2>Pictures');
  });

  it('asks as in training, and loads in Python what PEFT leaves out', async () => {
    await fillRun(dir, { finished: false });
    const config = {
      ...{ ...defaultConfig('lora+qformer'), model: 'base', data: 'd', task: 'vqa' as const },
      ...{ prompt: 'Q: {} A:', output_dir: 'run', precision: 'int8' as const },
    };
    await writeFile(join(dir, 'config.yaml'), toYaml(config));
    await mkdir(join(dir, 'adapter'));
    await writeFile(join(dir, 'adapter', 'extra_trainables.safetensors'), '');
    const page = (await bodyOf(dir)).replaceAll('&quot;', '"').replaceAll('&#39;', "'");
    for (const text of [
      "npx blip2 answer e.png --question 'what is this?' --model base --adapter run/adapter --precision int8 --prompt 'Q: {} A:'",
      'text="Q: what is this? A:", ',
      'extra = load_file("run/adapter/extra_trainables.safetensors")',
      'npx blip2 fit run/config.yaml --output run-again',
    ])
      expect(page).toContain(text);
  });

  it('refuses a folder that is no run', async () => {
    await expect(writeReport(join(dir, 'nothing'))).rejects.toThrow(
      'expected a run folder with a config.yaml',
    );
  });
});

describe('pictures', () => {
  const row = (image: string, score?: number, after = 'x'): SampleRow => ({
    image,
    reference: 'a',
    after,
    score,
  });

  it('have the questions about them, and come in the order of their scores', () => {
    const samples = [row('a', 1), row('b', 0), row('a', 0), row('c', 0.25)];
    const shots = shotsOf({ samples, results: undefined });
    expect(shots.map(({ image, score, rows }) => [image, score, rows.length])).toEqual([
      ['b', 0, 1],
      ['c', 0.25, 1],
      ['a', 0.5, 2],
    ]);
  });

  it('are right or wrong where a run of an earlier version has no scores', () => {
    const shots = shotsOf({ samples: [row('a', undefined, 'a'), row('b')], results: undefined });
    expect(shots.map(({ image, score }) => [image, score])).toEqual([
      ['b', 0],
      ['a', 1],
    ]);
  });
});

describe('html', () => {
  it('escapes text, keeps markup, joins lists, drops false and undefined', () => {
    const inner = html`<i>${'&'}</i>`;
    expect(html`<p>${inner}${['<', 1]}${false}${undefined}</p>`.text).toBe('<p><i>&amp;</i>&lt;1</p>');
  });

  it('does not read replacement patterns or tags in values', () => {
    expect(html`${'$& ${x}'}`.text).toBe('$&amp; ${x}');
  });

  it('writes control characters and marks that reorder text as escapes, and keeps other scripts', () => {
    expect(html`${'a\u0000\u001b[1m\u202eb\u2066\nעברית\u200f'}`.text).toBe(
      'a\\u0000\\u001b[1m\\u202eb\\u2066\nעברית\u200f',
    );
  });
});

describe('ticks', () => {
  it('are round and cover the range', () => {
    expect(ticks(0, 2.7)).toEqual([0, 1, 2, 3]);
    expect(ticks(0, 0.0021)).toEqual([0, 0.0005, 0.001, 0.0015, 0.002, 0.0025]);
    expect(ticks(0, 316)).toEqual([0, 100, 200, 300, 400]);
    expect(ticks(0.5, 0.5)).toEqual([0.5, 0.6]);
  });

  it('of a logarithmic axis are 1, 2 and 5 times powers of ten, or powers of ten', () => {
    expect(logTicks(0.06, 7.9)).toEqual([0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10]);
    expect(logTicks(0.0003, 40)).toEqual([0.0001, 0.001, 0.01, 0.1, 1, 10, 100]);
    expect(logTicks(1, 10)).toEqual([1, 2, 5, 10]);
  });
});

describe('spread', () => {
  it('takes evenly spaced items', () => {
    expect(spread([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 4)).toEqual([0, 3, 6, 9]);
    const questions = Array.from({ length: 2016 }, (_, i) => i % 3);
    expect(new Set(spread(questions, 24)).size).toBe(3);
    expect(spread([5, 6, 7], 1)).toEqual([5]);
    expect(spread([1, 2], 4)).toEqual([1, 2]);
  });
});

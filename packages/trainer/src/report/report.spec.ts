import { mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { defaultConfig, toYaml } from '../config';
import { encodePng } from '../evaluation/png';
import { ticks } from './chart';
import { html } from './html';
import type { RunResults, SampleRow } from './run-files';
import { writeReport } from './index';
import { spread } from './spread';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'report-'));
  const config = {
    ...defaultConfig('lora'),
    model: 'models/base',
    data: 'data/<pets>',
    output_dir: 'runs/pets',
  };
  await writeFile(join(dir, 'config.yaml'), toYaml(config));
});

const lines = (rows: object[]) => rows.map((row) => JSON.stringify(row)).join('\n') + '\n';

async function fill(): Promise<void> {
  const results: RunResults = {
    table: {
      parts: ['subject'],
      n: 200,
      split: 'test',
      rows: [
        { name: 'fine-tuned', kind: 'model', exact: 0.475, parts: { subject: 0.8 } },
        { name: 'base, before training', kind: 'base', exact: 0, parts: { subject: 0 } },
        { name: 'nearest neighbour', kind: 'control', exact: 0.125, parts: { subject: 0.5 }, note: '32×32' },
      ],
    },
    trainable: 'trainable params: 98,304 || all params: 6,234,624 || trainable%: 1.5768',
    data: { train: 2520, test: 200 },
    steps: 20,
    train_seconds: 42,
    backend: 'wasm',
  };
  const picture = join(dir, 'a.png');
  await writeFile(picture, encodePng(new Uint8Array(3 * 4).fill(200), 2, 2));
  const samples: SampleRow[] = [
    { image: picture, reference: 'a <b>cat</b>', before: 'a "dog"', after: 'a <b>cat</b>' },
    { image: join(dir, 'gone.png'), reference: 'a bird', after: '' },
  ];
  await writeFile(join(dir, 'results.json'), JSON.stringify(results));
  await writeFile(join(dir, 'samples.jsonl'), lines(samples));
  await writeFile(join(dir, 'environment.json'), JSON.stringify({ node: 'v20', cpu: { cores: 2 } }));
  const metrics = [
    { step: 10, loss: 2.5, learning_rate: 1e-3 },
    { step: 10, eval_loss: 2.25 },
    { step: 20, loss: 1.5, learning_rate: 1e-4 },
    { step: 20, eval_loss: 1.25 },
  ];
  await writeFile(join(dir, 'metrics.jsonl'), lines(metrics));
}

describe('writeReport', () => {
  it('shows results, curves, samples and settings in one file without outside assets', async () => {
    await fill();
    const page = await readFile(await writeReport(dir), 'utf8');
    for (const text of [
      '47.5 %',
      'nearest neighbour',
      '.125',
      'trainable params: 98,304',
      'PeftModel',
      'lora_alpha: 32',
    ])
      expect(page).toContain(text);
    expect(page).toContain(
      'aria-label="Loss per token: training from 2.5 at 10 to 1.5 at 20; validation from',
    );
    expect(page).toContain('data:image/png;base64,iVBOR');
    expect(page).not.toMatch(/(?:src|href)="(?!data:|#)/);
  });

  it('marks right and wrong in words, and a missing picture and an empty caption as such', async () => {
    await fill();
    const page = await readFile(await writeReport(dir), 'utf8');
    expect(page.match(/right: <\/span>/g)).toHaveLength(1);
    expect(page.match(/wrong: <\/span>/g)).toHaveLength(2);
    expect(page).toContain('no picture');
    expect(page).toContain('(nothing)');
  });

  it('escapes what comes from data and settings', async () => {
    await fill();
    const page = await readFile(await writeReport(dir), 'utf8');
    expect(page).toContain('data/&lt;pets&gt;');
    expect(page).toContain('a &lt;b&gt;cat&lt;/b&gt;');
    expect(page).toContain('a &quot;dog&quot;');
    expect(page).not.toContain('<b>cat');
  });

  it('writes what is there when a run stopped early', async () => {
    const page = await readFile(await writeReport(dir), 'utf8');
    expect(page).toContain('Repeat it');
    expect(page).not.toContain('<h2>Results');
    expect(page).not.toContain('<h2>Curves');
  });

  it('asks as in training, and loads in Python what PEFT leaves out', async () => {
    const config = { ...defaultConfig('lora+qformer'), model: 'base', data: 'd', task: 'vqa' as const };
    await writeFile(join(dir, 'config.yaml'), toYaml({ ...config, prompt: 'Q: {} A:', output_dir: 'run' }));
    await mkdir(join(dir, 'adapter'));
    await writeFile(join(dir, 'adapter', 'extra_trainables.safetensors'), '');
    const page = (await readFile(await writeReport(dir), 'utf8')).replaceAll('&quot;', '"');
    for (const text of [
      'blip2 answer picture.png --question "what is this?" --model base --adapter run/adapter --prompt "Q: {} A:"',
      'text="Q: what is this? A:", ',
      'base.load_state_dict(load_file("run/adapter/extra_trainables.safetensors"), strict=False)',
    ])
      expect(page).toContain(text);
  });

  it('refuses a folder that is no run', async () => {
    await expect(writeReport(join(dir, 'nothing'))).rejects.toThrow(
      'expected a run folder with a config.yaml',
    );
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
});

describe('ticks', () => {
  it('are round and cover the range', () => {
    expect(ticks(0, 2.7)).toEqual([0, 1, 2, 3]);
    expect(ticks(0, 0.0021)).toEqual([0, 0.0005, 0.001, 0.0015, 0.002, 0.0025]);
    expect(ticks(0, 316)).toEqual([0, 100, 200, 300, 400]);
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

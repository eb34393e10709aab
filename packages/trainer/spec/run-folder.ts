/** A run folder as `fit` leaves it, for specs of the report and the comparison. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { defaultConfig, toYaml } from '../src/config';
import type { FitConfig } from '../src/config';
import { encodePng } from '../src/evaluation/png';
import type { RunResults, SampleRow } from '../src/report';

const lines = (rows: object[]) => rows.map((row) => JSON.stringify(row)).join('\n') + '\n';

export interface Filled {
  config?: Partial<FitConfig>;
  /** scores of the held-out rows, 0 or 1 */
  scores?: number[];
  finished?: boolean;
  /** factor of all losses */
  loss?: number;
}

/** Texts with markup, script and marks that reorder, as data may have them. */
export async function fillRun(
  dir: string,
  { config, scores = [0, 1, 0, 1], finished = true, loss = 1 }: Filled = {},
): Promise<void> {
  await mkdir(dir, { recursive: true });
  const settings = {
    model: 'models/base',
    data: 'data/<pets>',
    output_dir: dir,
    parts_pattern: '^a (?<subject>.+)$',
  };
  await writeFile(join(dir, 'config.yaml'), toYaml({ ...defaultConfig('lora'), ...settings, ...config }));
  await writeFile(join(dir, 'metrics.jsonl'), lines(metrics(loss)));
  await writeFile(join(dir, 'environment.json'), JSON.stringify({ node: 'v20', cpu: { cores: 2 } }));
  const course = [0, 50, 100].map((step) => ({
    step,
    image: 'e.png',
    reference: 'an owl',
    text: `text ${step}`,
  }));
  await writeFile(join(dir, 'training-samples.jsonl'), lines(course));
  if (!finished) return;
  const picture = join(dir, 'a <img src=x onerror=alert(2)>\u202egnp.exe.png');
  await writeFile(picture, encodePng(new Uint8Array(3 * 4).fill(200), 2, 2));
  const samples: SampleRow[] = [
    { image: join(dir, 'gone.png'), reference: 'a bird', before: '', after: '' },
    {
      image: picture,
      reference: 'a <b>cat</b>',
      before: '</script><script>alert(1)</script>',
      after: 'a <b>cat</b>',
    },
    { image: join(dir, 'c.png'), reference: 'a dog', before: 'a dog', after: 'a fish' },
    { image: join(dir, 'd.png'), reference: 'a horse', before: 'עברית', after: 'a horse' },
  ];
  await writeFile(join(dir, 'samples.jsonl'), lines(samples.map((row, i) => ({ ...row, score: scores[i] }))));
  await writeFile(join(dir, 'results.json'), JSON.stringify(results(scores)));
}

function metrics(factor: number): object[] {
  const training = Array.from({ length: 10 }, (_, i) => ({
    step: 10 * (i + 1),
    loss: factor * [4, 2, 1, 0.8, 0.6, 0.4, 0.3, 0.2, 0.15, 0.1][i],
    learning_rate: 1e-3 / (i + 1),
    grad_norm: 5 / (i + 1),
    images_per_second: 100 + i,
  }));
  const evaluations = [20, 60, 100].map((step, i) => ({
    step,
    eval_loss: factor * [2, 0.9, 0.8][i],
    eval_exact: i / 4,
    eval_subject: i / 3,
    eval_cider_d: i,
  }));
  return [...training, ...evaluations];
}

function results(scores: number[]): RunResults {
  const mean = scores.reduce((sum, score) => sum + score, 0) / scores.length;
  return {
    verdict: {
      outcome: 'learned',
      headline: 'exact',
      pictures: scores.length,
      score: { mean, low: mean / 2, high: 1 },
      others: { before: 0, blank: 0.1, shuffled: 0.05 },
      weak: [{ name: 'subject', n: 4, model: 0.5 }],
      confusions: [{ expected: 'cat', found: 'dog', times: 3 }],
      sentences: [
        'learned: exact match 0.0 % → 50.0 %',
        'uses the picture: 50.0 %, against 10.0 % with a blank image',
      ],
    },
    next: { why: 'try it on a picture', command: ['caption', 'a b.png', '--model', 'models/base'] },
    table: {
      parts: ['subject'],
      n: scores.length,
      split: 'test',
      rows: [
        { name: 'fine-tuned', kind: 'model', exact: 0.475, parts: { subject: 0.8 } },
        { name: 'base, before training', kind: 'base', exact: 0, parts: { subject: 0 } },
        { name: 'blank image', kind: 'control', exact: 0.1, parts: { subject: 0.1 } },
        { name: 'nearest neighbour', kind: 'control', exact: 0.125, parts: { subject: 0.5 }, note: '32×32' },
      ],
    },
    trainable: 'trainable params: 98,304 || all params: 6,234,624 || trainable%: 1.5768',
    data: { train: 2520, test: scores.length },
    steps: 100,
    train_seconds: 42,
    backend: 'wasm',
  };
}

import { copyFile, mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Example } from '@blip2/data-captions';
import { describe, expect, it } from 'vitest';
import { describeMetrics, evaluationMetrics } from './evaluate-metrics';
import { cli, IMAGE, TINY, tinyData } from './testing';

const example = (more: Partial<Example>): Example => ({ image: 'x', fields: {}, source: 'f:1', ...more });

describe('metrics of an evaluation', () => {
  const asked = [
    example({ question: 'what colour?', answer: 'red', fields: { question_type: 'colour' } }),
    example({ question: 'what colour?', answer: 'blue', fields: { question_type: 'colour' } }),
    example({ question: 'how many?', answer: '2', fields: { question_type: 'number' } }),
  ];

  it('VQA accuracy by question type beside the question alone', () => {
    const metrics = evaluationMetrics('vqa', asked, ['Red.', 'red', 'two'], {
      'blank image': ['red', 'red', '3'],
    });
    expect(metrics.vqa).toMatchObject({
      rule: 'exact',
      per_question_type: { colour: { accuracy: 0.5, n: 2 } },
    });
    expect(metrics.question_only!.per_question_type.number.accuracy).toBe(0);
    expect(describeMetrics(metrics)).toMatch(
      /colour +2 +50\.0 +50\.0\nnumber +1 +100\.0 +0\.0\nall +3 +66\.7 +33\.3/,
    );
  });

  it('caption figures against all references, and the share that changes with the picture', () => {
    const captioned = [
      example({ caption: 'a cat', captions: ['a cat', 'a black cat sits'] }),
      example({ caption: 'a dog runs' }),
    ];
    const metrics = evaluationMetrics('caption', captioned, ['a black cat sits', 'a dog runs'], {
      'shuffled images': ['a black cat sits', 'a black cat sits'],
    });
    expect(metrics.captions!.bleu_4).toBeGreaterThan(0.9);
    expect(metrics.degeneration.changed_when_shuffled).toBe(0.5);
    expect(describeMetrics(metrics)).toMatch(/ROUGE-L +100\.0/);
  });

  it('evaluate prints them for captions and for questions', async () => {
    const captions = await cli([
      'evaluate',
      '--model',
      TINY,
      '--data',
      await tinyData(1),
      '--json',
      '--backend',
      'cpu',
    ]);
    expect(JSON.parse(captions.out).metrics.captions).toMatchObject({ n: 3 });
    const root = await mkdtemp(join(tmpdir(), 'blip2-vqa-'));
    await copyFile(IMAGE, join(root, 'a.png'));
    const row = { file_name: 'a.png', question: 'what colour?', answers: ['red', 'red', 'red', 'pink'] };
    await writeFile(join(root, 'metadata.jsonl'), JSON.stringify(row));
    const vqa = await cli(['evaluate', '--model', TINY, '--data', root, '--json', '--backend', 'cpu']);
    const { metrics } = JSON.parse(vqa.out);
    expect(metrics.vqa).toMatchObject({
      rule: 'official',
      n: 1,
      per_question_type: { 'what colour?': { n: 1 } },
    });
    expect(metrics.question_only.n).toBe(1);
  });
});

/** Models for retrieval on the command line: match, embed, evaluate. */
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cli, IMAGE, TINY, tinyData } from '../spec/testing';

const MODEL = fileURLToPath(new URL('../../retrieval/fixtures/tiny', import.meta.url));
const OPTIONS = ['--model', MODEL, '--backend', 'cpu', '--json'];
let data: string;
beforeAll(async () => void (data = await tinyData(1)));
afterAll(() => rm(data, { recursive: true, force: true }));

interface Match {
  results: { image: string; texts: { text: string; similarity: number; match: number }[] }[];
}
interface Vectors {
  rows: { image?: string; text?: string; vector?: number[]; vectors?: number[][] }[];
}

describe('match and embed', () => {
  it('give the same similarity', async () => {
    const texts = ['a red thing', 'a dog'];
    const match = await cli(['match', IMAGE, '--text', ...texts, ...OPTIONS, '--batch-size', '1']);
    expect(match.code).toBe(0);
    const [{ texts: found }] = (JSON.parse(match.out) as Match).results;
    expect(found.map(({ text }) => text)).toEqual(texts);
    const embed = await cli(['embed', IMAGE, '--text', ...texts, ...OPTIONS]);
    const { rows } = JSON.parse(embed.out) as Vectors;
    const { vectors } = rows.find(({ image }) => image === IMAGE)!;
    for (const { text, similarity, match } of found) {
      const { vector } = rows.find((row) => row.text === text)!;
      const products = vectors!.map((query) => query.reduce((sum, x, i) => sum + x * vector![i], 0));
      expect(similarity).toBeCloseTo(Math.max(...products), 5);
      expect(match).toBeGreaterThan(0);
      expect(match).toBeLessThan(1);
    }
  });

  it('match prints a table', async () => {
    const { code, out } = await cli([
      'match',
      IMAGE,
      '--text',
      'a dog',
      '--model',
      MODEL,
      '--backend',
      'cpu',
    ]);
    expect(code).toBe(0);
    expect(out).toMatch(/match {2}similarity {2}text\n +\d+\.\d % +-?\d\.\d{3} {2}a dog\n$/);
  });

  it('embed writes a file', async () => {
    const output = join(data, 'vectors.jsonl');
    const { code } = await cli(['embed', IMAGE, ...OPTIONS, '--output', output]);
    expect(code).toBe(0);
    const row = JSON.parse(await readFile(output, 'utf8')) as { vectors: number[][] };
    expect(row.vectors.map((vector) => vector.length)).toEqual([12, 12, 12, 12]);
  });

  it.each([
    [['embed', ...OPTIONS], 'expected images, or --text; found neither', 2],
    [
      ['match', IMAGE, '--text', 'a', '--model', TINY],
      'architectures: expected one of Blip2ForImageTextRetrieval',
      1,
    ],
    [
      ['evaluate', '--model', MODEL, '--data', 'x', '--controls'],
      'is a model for retrieval: leave out --controls',
      2,
    ],
    [['evaluate', '--model', TINY, '--data', 'x', '--rerank', '2'], 'expected a model for retrieval', 2],
    [['caption', IMAGE, '--model', MODEL], 'works with `blip2 match`, `embed`, `evaluate` and `fit`', 1],
    [['retrieval-base', '--model', MODEL, '--output', 'x'], 'is a model for retrieval already', 2],
  ])('%j is refused', async (args, message, expected) => {
    const { code, err } = await cli(args);
    expect(err).toContain(message);
    expect(code).toBe(expected);
  });
});

describe('evaluate', () => {
  it('scores the recall of a model for retrieval in both directions', async () => {
    const { code, out, err } = await cli(['evaluate', '--data', data, '--split', 'test', ...OPTIONS]);
    expect([code, err.includes('error')]).toEqual([0, false]);
    const found = JSON.parse(out) as {
      images: number;
      texts: number;
      image_to_text: { r1: number; r5: number };
      chance: { text_to_image: { r1: number } };
    };
    expect(found).toMatchObject({ images: 3, texts: 3 });
    expect(found.chance.text_to_image.r1).toBeCloseTo(1 / 3);
    expect(found.image_to_text.r5).toBe(1);
  });
});

describe('fit, and what follows it', () => {
  it('makes an adapter that match, embed and evaluate take, and evaluate takes the run', async () => {
    const run = join(data, 'run');
    const options = [
      '--backend',
      'cpu',
      '--max-steps',
      '2',
      '--no-cache',
      '--batch-size',
      '2',
      '--lr',
      '0.05',
    ];
    const fitted = await cli([
      ...['fit', '--model', MODEL, '--data', data, '--output', run, '--preset', 'lora', ...options],
    ]);
    expect(fitted.err).toContain('plan: ');
    expect([fitted.code, fitted.err.includes('plan: none')]).toEqual([0, false]);
    expect(fitted.out).toContain('recall at 1');
    const adapter = ['--adapter', join(run, 'adapter')];
    const scores = async (...more: string[]) => {
      const { code, out } = await cli(['match', IMAGE, '--text', 'a dog', ...OPTIONS, ...more]);
      expect(code).toBe(0);
      return (JSON.parse(out) as Match).results[0].texts[0].similarity;
    };
    expect(await scores(...adapter)).not.toBe(await scores());
    const merged = join(data, 'merged');
    const made = await cli(['merge', '--model', MODEL, ...adapter, '--output', merged, '--backend', 'cpu']);
    expect([made.code, made.err.includes('error')]).toEqual([0, false]);
    const { code, out } = await cli([
      ...['match', IMAGE, '--text', 'a dog', '--model', merged, '--backend', 'cpu', '--json'],
    ]);
    expect(code).toBe(0);
    expect((JSON.parse(out) as Match).results[0].texts[0].similarity).toBeCloseTo(
      await scores(...adapter),
      5,
    );
    const evaluated = await cli(['evaluate', run, '--backend', 'cpu', '--json', '--rerank', '2']);
    expect(evaluated.code).toBe(0);
    const found = JSON.parse(evaluated.out) as { images: number; rerank: number; reranked: object };
    expect(found).toMatchObject({ images: 3, rerank: 2, reranked: { chance: {} } });
  });

  it('plan has a row for each preset that such a model can have', async () => {
    const { code, out } = await cli(['plan', '--model', MODEL, '--data', data, '--backend', 'cpu']);
    expect(code).toBe(0);
    expect(out).toMatch(/→ +qformer-projection/);
    expect(out).toContain('lora+qformer cannot have these settings: preset');
    expect(out.match(/^ *(→ )? *(lora|qformer|qformer-projection|full) +[\d,]+ +\d+ MB +yes/gm)).toHaveLength(
      4,
    );
  });

  it('inspect shows the parts, and what a preset trains', async () => {
    const model = await cli(['inspect', 'model', MODEL]);
    expect(model.out).toContain('Blip2ForImageTextRetrieval: compares images and texts');
    const params = await cli(['inspect', 'params', '--model', MODEL, '--preset', 'lora', '--list']);
    expect(params.out).toContain('qformer.encoder.layer.0.attention.attention.query');
    const refused = await cli(['inspect', 'params', '--model', MODEL, '--preset', 'lora+qformer']);
    expect([refused.code, refused.err.includes('puts adapters into a language model')]).toEqual([1, true]);
  });

  it('retrieval-base makes a model of a model for captions, which match reads', async () => {
    const output = join(data, 'base');
    const made = await cli([
      'retrieval-base',
      '--model',
      TINY,
      '--output',
      output,
      '--max-text-length',
      '20',
    ]);
    expect([made.code, made.err]).toEqual([0, '']);
    const { code, out } = await cli([
      ...['match', IMAGE, '--text', 'a dog', '--model', output, '--backend', 'cpu', '--json'],
    ]);
    expect(code).toBe(0);
    expect(Math.abs((JSON.parse(out) as Match).results[0].texts[0].similarity)).toBeLessThan(1);
  });
});

import { rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Example } from '@blip2/data-captions';
import { useBackend } from '@blip2/nn/node';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { fit } from '../fit';
import { loadData } from './open';
import { courseOf, tinyConfig, tinyJob } from '../../spec/tiny';

let root: string;
beforeAll(async () => void (await useBackend('cpu')));
beforeEach(async () => void (root = await tinyJob()));
afterEach(async () => rm(root, { recursive: true }));

/** The eight training squares as one file without splits, with more rows. */
async function unsplit(...more: object[]): Promise<string> {
  const file = join(root, 'all.jsonl');
  const squares = [0, 1].flatMap((copy) =>
    ['a dog', 'a cat', 'on a mat', 'the hat'].map((caption, i) => ({
      image: `train/${copy}-${i}.png`,
      caption,
    })),
  );
  await writeFile(file, [...squares, ...more].map((row) => JSON.stringify(row)).join('\n'));
  return file;
}

describe('loadData', () => {
  it('draws splits by share in which no image is twice, with the seed', async () => {
    const data = await unsplit({ image: 'train/0-0.png', caption: 'a dog again' });
    const given = { data, split_fractions: { validation: 0.25, test: 0.25 } };
    const { train, validation, test } = await loadData(tinyConfig(root, given));
    const images = [train, validation!, test!].map(
      ({ examples }) => new Set(examples.map(({ image }) => image)),
    );
    expect(images.map(({ size }) => size)).toEqual([4, 2, 2]);
    expect(new Set(images.flatMap((set) => [...set])).size).toBe(8);
    const again = await loadData(tinyConfig(root, given));
    expect(again.test!.examples).toEqual(test!.examples);
    const other = await loadData(tinyConfig(root, { ...given, seed: 5 }));
    expect(other.test!.examples).not.toEqual(test!.examples);
  });

  it('finds columns and pictures where the settings tell', async () => {
    const data = join(root, 'rows.csv');
    await writeFile(data, 'pic;words\n0-0.png;a dog\n');
    const given = { data, image_column: 'pic', caption_column: 'words', image_folder: join(root, 'train') };
    const { train } = await loadData(
      tinyConfig(root, { ...given, eval_data: data, final_evaluation: 'none' }),
    );
    expect(train.examples).toMatchObject([{ image: join(root, 'train/0-0.png'), caption: 'a dog' }]);
    await expect(loadData(tinyConfig(root, { ...given, image_column: undefined }))).rejects.toThrow(
      /did you mean image_column: pic\?/,
    );
  });

  it('ends with the list of bad rows, or leaves them out and names them', async () => {
    await writeFile(join(root, 'cut.png'), 'no picture');
    const data = await unsplit(
      { image: 'gone.png', caption: 'a fish' },
      { image: 'cut.png', caption: 'a bird' },
      { image: 'train/0-0.png' },
    );
    await expect(loadData(tinyConfig(root, { data }))).rejects.toThrow(/2 of 11 rows cannot be used/);
    const said: string[] = [];
    const hooks = { onMessage: (text: string) => void said.push(text) };
    const { train } = await loadData(tinyConfig(root, { data, skip_bad: true }), hooks);
    expect(train.examples.map(({ image }) => basename(image))).not.toContain('cut.png');
    expect(train.examples).toHaveLength(8);
    expect(said).toEqual([
      expect.stringMatching(
        /left out 3 bad rows\n.*all\.jsonl:9: .*\n.*all\.jsonl:10: .*cut\.png.*\n.*all\.jsonl:11: /,
      ),
    ]);
  });

  it('names a bad row once, however many splits of a file there are', async () => {
    const split = (name: string, i: number) => ({ image: `train/0-${i}.png`, caption: 'a dog', split: name });
    const data = join(root, 'splits.jsonl');
    const rows = [
      ...['train', 'validation', 'test'].map(split),
      { image: 'train/0-0.png', caption: 'whose?' },
    ];
    await writeFile(data, rows.map((row) => JSON.stringify(row)).join('\n'));
    const said: string[] = [];
    const hooks = { onMessage: (text: string) => void said.push(text) };
    await loadData(tinyConfig(root, { data, skip_bad: true }), hooks);
    expect(said).toEqual([expect.stringMatching(/left out 1 bad row\n.*splits\.jsonl:4: .*split/)]);
  });

  it('says what is wrong when every row is bad', async () => {
    const data = join(root, 'bad.jsonl');
    await writeFile(data, JSON.stringify({ image: 'gone.png', caption: 'a dog' }));
    for (const more of [{}, { split_fractions: { validation: 0.5 } }]) {
      const opened = loadData(tinyConfig(root, { data, skip_bad: true, ...more }));
      await expect(opened).rejects.toThrow(/^\S+: 1 of 1 rows cannot be used; repair them\n.*gone\.png/);
    }
  });

  it('refuses to be steered by what this data cannot give', async () => {
    const data = await unsplit();
    const steered = { early_stopping_patience: 2 };
    await expect(loadData(tinyConfig(root, { data, ...steered }))).rejects.toThrow(
      /early_stopping_patience.*\n.*needs validation data/,
    );
    const questions = join(root, 'questions.jsonl');
    const row = { image: 'train/0-0.png', question: 'what?', answer: 'a dog', question_type: 'the kind' };
    await writeFile(questions, JSON.stringify(row));
    const vqa = { data: questions, eval_data: questions, task: 'vqa', predict_with_generate: true };
    const by = (metric_for_best_model: string) =>
      loadData(tinyConfig(root, { ...vqa, metric_for_best_model })).then(() => 'fine');
    expect(await by('accuracy_the_kind')).toBe('fine');
    await expect(by('accuracy_colour')).rejects.toThrow(
      'expected one of eval_accuracy, eval_accuracy_the_kind, found "eval_accuracy_colour"',
    );
  });
});

describe('a run on questions', () => {
  it('reports accuracy per type of question, beside the question alone, and is steered by it', async () => {
    const file = join(root, 'questions.jsonl');
    const rows = ['dog', 'cat', 'mat', 'hat'].flatMap((name, i) => [
      { image: `train/0-${i}.png`, question: 'what?', answer: name, question_type: 'the kind' },
      { image: `train/0-${i}.png`, question: 'is it?', answer: ['a', 'the'][i % 2], question_type: 'other' },
    ]);
    await writeFile(file, rows.map((row) => JSON.stringify(row)).join('\n'));
    const config = tinyConfig(root, {
      ...{ data: file, eval_data: file, task: 'vqa', final_evaluation: 'validation' },
      ...{ predict_with_generate: true, metric_for_best_model: 'accuracy_the_kind' },
      ...{ max_steps: 3, eval_steps: 1, save_steps: 1 },
    });
    let round = 0; // right about the kind in the second evaluation, about the rest in the others
    const shown = new Map(rows.map(({ image, answer }) => [answer, join(root, image)]));
    const generate = (_: unknown, __: unknown, examples: Example[]) => {
      const asked = round++ === 1 || round > 3 ? 'what?' : 'is it?';
      const knows = ({ question, answer, image }: Example) =>
        question === asked && (asked === 'is it?' || image === shown.get(answer as string));
      return Promise.resolve(
        examples.map((example) => (knows(example) ? (example.answer as string) : 'a fish')),
      );
    };
    const result = await fit(config, {}, { generate });
    const { vqa, question_only, shuffled_images } = result.figures!;
    expect(vqa!.per_question_type).toEqual({
      'the kind': { accuracy: 1, n: 4 },
      other: { accuracy: 0, n: 4 },
    });
    // a question alone has one answer for all four pictures; with another picture, nothing is known
    expect(question_only!.vqa!.per_question_type['the kind'].accuracy).toBe(1 / 4);
    expect(shuffled_images!.vqa!.per_question_type['the kind'].accuracy).toBe(0);
    expect(result.best).toEqual({ step: 2, score: -1 });
    const course = await courseOf(config.output_dir);
    expect(course.at(-1)).toMatchObject({
      validation_accuracy_the_kind: 1,
      validation_shuffled_accuracy_the_kind: 0,
      validation_accuracy: 0.5,
      validation_question_only_accuracy: question_only!.vqa!.accuracy,
    });
    expect(course.find(({ eval_loss }) => eval_loss)).toHaveProperty('eval_accuracy_other');
  });
});

it.each([
  { use_dora: true, use_rslora: true, rank_pattern: { q_proj: 2 }, bias: 'lora_only' },
  { target_modules: 'all-linear', exclude_modules: 'vision_model.*', init_lora_weights: 'gaussian' },
  { target_modules: ['query', 'value'], modules_to_save: ['language_projection'], lora_bias: true },
])("trains, saves and resumes with PEFT's options: %o", async (lora) => {
  const settings = { max_steps: 4, save_steps: 1, final_evaluation: 'none', lora: { r: 4, ...lora } };
  const config = tinyConfig(root, settings);
  const abort = new AbortController();
  await fit(config, { signal: abort.signal, onProgress: ({ step }) => void (step === 2 && abort.abort()) });
  await fit(config, { resume: true });
  const course = await courseOf(config.output_dir);
  await fit({ ...config, output_dir: join(root, 'whole') });
  expect(course).toEqual(await courseOf(join(root, 'whole')));
});

/** The same pictures and texts give the same figures, whatever the layout of the file. */
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { openDataset } from '@blip2/data-captions';
import type { Example } from '@blip2/data-captions';
import { useBackend } from '@blip2/nn/node';
import fc from 'fast-check';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { courseOf, tinyConfig, tinyJob } from '../../spec/tiny';
import { fit } from '../fit';
import { referencesOf } from './captions';
import { figuresOf, namedFigures } from './figures';
import { scoreCaptions } from './score';

let root: string;
beforeAll(async () => void (await useBackend('cpu')));
beforeEach(async () => void (root = await tinyJob()));
afterEach(async () => rm(root, { recursive: true }));

const TEXTS = ['a dog', 'a cat', 'on a mat', 'the hat', 'a dog on a mat', 'the cat'];
const PICTURES = [0, 1, 2, 3].map((i) => `test/0-${i}.png`);

async function written(rows: object[]): Promise<string> {
  const file = join(root, 'layout.jsonl');
  await writeFile(file, rows.map((row) => JSON.stringify(row)).join('\n'));
  return file;
}

/** Figures of a model that has one text for each picture. */
async function figures(
  rows: object[],
  said: string[],
  task: 'caption' | 'vqa',
): Promise<Record<string, number>> {
  const { examples } = await openDataset(await written(rows), { references_for: task });
  const text = ({ image }: Example) => said[PICTURES.findIndex((name) => image.endsWith(name))];
  const texts = examples.map(text);
  const references = examples.map((example) => referencesOf(example, task));
  const { exact } = scoreCaptions(texts, references);
  return { exact, n: examples.length, ...namedFigures(figuresOf(task, examples, texts)) };
}

function expectEqual(found: Record<string, number>, wanted: Record<string, number>): void {
  expect(Object.keys(found).sort()).toEqual(Object.keys(wanted).sort());
  for (const [name, value] of Object.entries(found)) expect(value, name).toBeCloseTo(wanted[name], 10);
}

const text = fc.constantFrom(...TEXTS);
const perPicture = fc.array(text, { minLength: 1, maxLength: 5 });
const all = <T>(one: fc.Arbitrary<T>) => fc.array(one, { minLength: 4, maxLength: 4 });

describe('figures do not depend on the layout of the file', () => {
  it('of captions: lists, rows, rows in any order, other spellings of a path', async () => {
    await fc.assert(
      fc.asyncProperty(
        all(perPicture),
        all(text),
        fc.infiniteStream(fc.nat(1000)),
        async (captions, said, keys) => {
          const lists = PICTURES.map((image, i) => ({ image, caption: captions[i] }));
          const rows = captions.flatMap((list, i) =>
            list.map((caption) => ({ image: PICTURES[i], caption })),
          );
          const wanted = await figures(lists, said, 'caption');
          expect(wanted.n).toBe(4);
          expect(await figures(rows, said, 'caption')).toEqual(wanted);
          const respelled = rows.map((row, i) =>
            i % 2 ? { ...row, image: `./train/../${row.image}` } : row,
          );
          const order = new Map(respelled.map((row) => [row, keys.next().value as number]));
          const shuffled = [...respelled].sort((a, b) => order.get(a)! - order.get(b)!);
          expectEqual(await figures(shuffled, said, 'caption'), wanted);
        },
      ),
      { numRuns: 40 },
    );
  });

  it('of answers: lists, rows, rows in reverse', async () => {
    await fc.assert(
      fc.asyncProperty(all(perPicture), all(perPicture), all(text), async (what, where, said) => {
        const rowsOf = (question: string, lists: string[][]) =>
          PICTURES.flatMap((image, i) => lists[i].map((answer) => ({ image, question, answer })));
        const listsOf = (question: string, lists: string[][]) =>
          PICTURES.map((image, i) => ({ image, question, answers: lists[i] }));
        const lists = [...listsOf('what?', what), ...listsOf('where?', where)];
        const rows = [...rowsOf('what?', what), ...rowsOf('where?', where)];
        const wanted = await figures(lists, said, 'vqa');
        expect(wanted.n).toBe(8);
        expect(await figures(rows, said, 'vqa')).toEqual(wanted);
        expectEqual(await figures(rows.reverse(), said, 'vqa'), wanted);
      }),
      { numRuns: 40 },
    );
  });

  it('in a run of fit: losses, metrics, best weights, final table with all controls', async () => {
    const captions = [
      ['a dog', 'the hat'],
      ['a cat', 'on a mat', 'a dog'],
      ['on a mat'],
      ['the hat', 'a cat'],
    ];
    const lists = PICTURES.map((image, i) => ({ image, caption: captions[i] }));
    const rows = captions.flatMap((list, i) => list.map((caption) => ({ image: PICTURES[i], caption })));
    const run = async (name: string, held: object[]) => {
      const eval_data = await written(held);
      const more = {
        eval_data,
        output_dir: join(root, name),
        final_evaluation: 'validation',
        controls: true,
      };
      const steps = {
        max_steps: 2,
        eval_steps: 1,
        predict_with_generate: true,
        metric_for_best_model: 'cider_d',
      };
      const { table, best } = await fit(tinyConfig(root, { ...more, ...steps }));
      return { table, best, course: await courseOf(join(root, name)) };
    };
    const [a, b, reversed] = [
      await run('a', lists),
      await run('b', rows),
      await run('c', [...rows].reverse()),
    ];
    expect(b.course).toEqual(a.course);
    expect(b.best).toEqual(a.best);
    expect(b.table).toEqual({ ...a.table, data_rows: 8 });
    expect(a.table).toMatchObject({ n: 4, data_rows: 4, pictures: 4 });
    for (const [i, row] of reversed.course.entries()) expectEqual(row, a.course[i]);
  });
});

import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { cli, IMAGE, TINY, tinyData } from '../spec/testing';

const evaluate = (data: string, ...more: string[]) =>
  cli(['evaluate', '--model', TINY, '--data', data, '--json', '--backend', 'cpu', ...more]);

it('evaluate prints the metrics of captions and of answers', async () => {
  const captions = JSON.parse((await evaluate(await tinyData(1))).out);
  expect(captions.metrics.captions).toMatchObject({ n: 3 });
  expect(captions.metrics.degeneration).toHaveProperty('changed_when_shuffled');
  const root = await mkdtemp(join(tmpdir(), 'blip2-vqa-'));
  await copyFile(IMAGE, join(root, 'a.png'));
  const row = { file_name: 'a.png', question: 'what colour?', answers: ['red', 'red', 'red', 'pink'] };
  await writeFile(join(root, 'metadata.jsonl'), JSON.stringify(row));
  const { metrics } = JSON.parse((await evaluate(root)).out);
  expect(metrics.vqa).toMatchObject({
    rule: 'official',
    n: 1,
    per_question_type: { 'what colour?': { n: 1 } },
  });
  expect(metrics.question_only.vqa.n).toBe(1);
  await rm(root, { recursive: true });
});

it('evaluate draws disjoint splits from shares and a seed, and skips bad rows with --skip-bad', async () => {
  const root = await mkdtemp(join(tmpdir(), 'blip2-shares-'));
  const names = ['red', 'grey', 'blue-alpha'];
  for (const name of names) await copyFile(IMAGE.replace('red', name), join(root, `${name}.png`));
  await writeFile(join(root, 'broken.png'), 'no picture');
  const rows = [...names, 'broken', 'gone'].map((name) => ({
    file_name: `${name}.png`,
    text: `a ${name} thing`,
  }));
  await writeFile(join(root, 'metadata.jsonl'), rows.map((row) => JSON.stringify(row)).join('\n'));
  const shares = ['--split-fractions', 'validation=0.25,test=0.5', '--seed', '3'];
  const test = await evaluate(root, ...shares, '--skip-bad');
  const validation = await evaluate(root, ...shares, '--skip-bad', '--split', 'validation');
  for (const { err } of [test, validation]) expect(err).toMatch(/metadata\.jsonl:5: .*gone\.png/);
  const images = [test, validation].flatMap(({ out }) =>
    JSON.parse(out).predictions.map(({ image }: { image: string }) => image),
  );
  expect(new Set(images).size).toBe(images.length); // no image is in two splits
  expect(images.some((image) => image.includes('broken'))).toBe(false);
  const all = await evaluate(root, '--skip-bad');
  expect([all.code, JSON.parse(all.out).n]).toEqual([0, 3]);
  expect(all.err).toMatch(
    /left out 2 bad rows\n {2}.*metadata\.jsonl:5: .*gone\.png.*\n {2}.*metadata\.jsonl:4: .*broken\.png/,
  );
  expect((await evaluate(root, '--split-fractions', 'half')).code).toBe(2);
  await rm(root, { recursive: true });
});

import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { cli, fitArgs, IMAGE, TINY, tinyData } from '../spec/testing';

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
    /left out 2 bad rows\n {2}.*metadata\.jsonl:4: .*broken\.png.*\n {2}.*metadata\.jsonl:5: .*gone\.png/,
  );
  expect((await evaluate(root, '--split-fractions', 'half')).code).toBe(2);
  await rm(root, { recursive: true });
});

it('evaluate gives rows and lists of captions the same figures', async () => {
  const root = await mkdtemp(join(tmpdir(), 'blip2-layout-'));
  const names = ['red', 'grey', 'blue-alpha'];
  for (const name of names) await copyFile(IMAGE.replace('red', name), join(root, `${name}.png`));
  const captions = (name: string) => [`a ${name} thing`, 'a thing', `the ${name} one`];
  const lists = names.map((name) => JSON.stringify({ image: `${name}.png`, caption: captions(name) }));
  await writeFile(join(root, 'lists.jsonl'), lists.join('\n'));
  const rows = [0, 1, 2].flatMap((i) =>
    names.map((name) => `${i % 2 ? './' : ''}${name}.png,${captions(name)[i]}`),
  );
  await writeFile(join(root, 'rows.csv'), ['image,caption', ...rows].join('\n'));
  const [a, b] = [await evaluate(join(root, 'lists.jsonl')), await evaluate(join(root, 'rows.csv'))];
  const wanted = JSON.parse(a.out);
  expect(wanted).toMatchObject({ n: 3, data_rows: 3, pictures: 3 });
  expect(JSON.parse(b.out)).toEqual({ ...wanted, data_rows: 9 });
  expect(wanted.predictions[0].references).toEqual(captions('red'));
  const limited = JSON.parse((await evaluate(join(root, 'rows.csv'), '--limit', '2')).out);
  expect(limited).toMatchObject({ n: 2, data_rows: 6, pictures: 2 });
  await rm(root, { recursive: true });
});

it('data check, fit and evaluate name the same bad rows in the same words', async () => {
  const root = await tinyData(1);
  await writeFile(join(root, 'broken.png'), 'no picture');
  const good = { image: 'train/red.png', caption: 'a red thing' };
  const bad = [
    { ...good, caption: 'a caf\ufffd' },
    { ...good, caption: ['a dog', ' '] },
    { ...good, caption: 'a thing</s>' },
    { ...good, caption: 'thing '.repeat(300) },
    { ...good, image: 'gone.png' },
    { image: 7, caption: '' },
    { ...good, image: 'broken.png' },
  ];
  const lines = (text: string) =>
    [...text.matchAll(/rows\.jsonl:\d+: expected .*/g)].map(([line]) => line.trimEnd()).sort();
  const file = join(root, 'rows.jsonl');
  const write = (rows: object[]) => writeFile(file, rows.map((row) => JSON.stringify(row)).join('\n'));
  await write([good, ...bad, good]);
  const check = await cli(['data', 'check', file, '--model', TINY]);
  expect(check.err).toContain('7 of 9 rows cannot be used');
  const named = lines(check.out);
  expect(named).toHaveLength(bad.length);
  const fit = await cli(fitArgs(file, join(root, 'run'), '--skip-bad', '--set', 'max_steps=1'));
  expect([fit.code, fit.err]).toEqual([0, expect.stringContaining('left out 7 bad rows')]);
  expect(lines(fit.err)).toEqual(named);
  const evaluated = await evaluate(file, '--skip-bad');
  expect([evaluated.code, lines(evaluated.err)]).toEqual([0, named]);
  // without --skip-bad every problem that can be seen before images are decoded is listed, then the image alone
  for (const run of [await cli(fitArgs(file, join(root, 'run-2'))), await evaluate(file)])
    expect([run.code, lines(run.err)]).toEqual([1, named.slice(0, -1)]);
  await write([good, bad[6]]);
  const line = named[6].replace(':8:', ':2:');
  for (const run of [await cli(fitArgs(file, join(root, 'run-3'))), await evaluate(file)])
    expect([run.code, lines(run.err)]).toEqual([1, [line]]);
  await rm(root, { recursive: true });
});

/** `evaluate RUN`, pictures that a run was trained on, and the base that an adapter names. */
import { appendFile, copyFile, cp, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cli, fitArgs, IMAGE, TINY, tinyData } from '../spec/testing';

const COLOURS = ['red', 'grey', 'blue-alpha'];
let root: string;
let run: string;
beforeAll(async () => {
  // the test split has pictures of its own
  root = await tinyData();
  await appendFile(join(root, 'test', 'grey.png'), '\n');
  run = join(root, 'run');
  const settings = ['generation.max_new_tokens=9', 'generation.num_beams=2', 'prompt=a', 'seed=3'];
  const fitted = await cli(fitArgs(root, run, ...settings.flatMap((one) => ['--set', one])));
  expect(fitted.err).not.toContain('error:');
});
afterAll(() => rm(root, { recursive: true }));

async function json(argv: string[]) {
  const { code, out, err } = await cli([...argv, '--backend', 'cpu', '--json']);
  expect(err).not.toContain('error:');
  expect(code).toBe(0);
  return { result: JSON.parse(out), err };
}

describe('evaluate RUN', () => {
  it('has the figures of the final table of the run', async () => {
    const { result, err } = await json(['evaluate', run, '--controls']);
    const { table, figures } = JSON.parse(await readFile(join(run, 'results.json'), 'utf8'));
    const numbers = (row: object) => ({ ...row, name: undefined });
    expect(result.rows.map(numbers)).toEqual(table.rows.map(numbers));
    expect(result).toMatchObject({ split: 'test', n: 3, adapter: join(run, 'adapter') });
    expect(result.metrics.captions).toEqual(figures.captions);
    expect(err).toMatch(/trained on 2 of these 3 pictures/);
  });

  it('takes options of the command line first, and another split', async () => {
    const { result } = await json([
      'evaluate',
      run,
      '--split',
      'validation',
      '--limit',
      '2',
      '--num-beams',
      '1',
    ]);
    expect(result).toMatchObject({ split: 'validation', n: 2 });
    const refused = await cli(['evaluate', run, '--split-fractions', '0.1']);
    expect(refused).toMatchObject({ code: 2, out: '' });
    expect(refused.err).toContain('--split-fractions: expected --data with it');
  });

  it('scores other data with the result of the run, and reports pictures that it was trained on', async () => {
    const other = join(root, 'other');
    await mkdir(other);
    const names = [...COLOURS, 'other'];
    for (const name of COLOURS) await copyFile(IMAGE.replace('red', name), join(other, `${name}-copy.png`));
    await copyFile(join(root, 'test', 'grey.png'), join(other, 'other-copy.png'));
    const rows = names.map((name) =>
      JSON.stringify({ image: `${name}-copy.png`, caption: `a ${name} thing` }),
    );
    await writeFile(join(other, 'rows.jsonl'), rows.join('\n'));
    for (const [model, trained] of [
      [[run], 3],
      [['--model', TINY, '--adapter', join(run, 'adapter')], 3],
      [['--model', TINY], undefined],
    ] as const) {
      const { result, err } = await json(['evaluate', ...model, '--data', other]);
      expect(result.trained_pictures).toBe(trained);
      expect(err.includes(`warning: the run ${run} was trained on 3 of these 4 pictures`)).toBe(
        trained === 3,
      );
    }
    await rename(join(run, 'images.sha256'), join(root, 'away')); // as a run without a cache
    const { result } = await json(['evaluate', run, '--data', other]);
    await rename(join(root, 'away'), join(run, 'images.sha256'));
    expect(result.trained_pictures).toBe(3);
  });

  it('finds the model and data of a run that was started elsewhere', async () => {
    const copy = join(root, 'moved', 'runs', 'mine');
    await mkdir(join(root, 'moved', 'runs'), { recursive: true });
    for (const split of ['train', 'validation', 'test'])
      await cp(join(root, split), join(root, 'moved', 'data', split), { recursive: true });
    await cp(TINY, join(root, 'moved', 'models'), { recursive: true });
    await rename(run, copy);
    const file = join(copy, 'config.yaml');
    const text = await readFile(file, 'utf8');
    const relative = text
      .replace(`output_dir: ${run}`, 'output_dir: runs/mine')
      .replace(`model: ${TINY}`, 'model: models')
      .replace(`data: ${root}\n`, 'data: data\n');
    await writeFile(file, relative);
    const { result } = await json(['evaluate', copy]);
    await writeFile(file, text);
    await rename(copy, run);
    expect(result.model).toBe(join(root, 'moved', 'models'));
    expect(result.predictions[0].image).toBe(join(root, 'moved', 'data', 'test', 'red.png'));
  });

  it('explains what is missing in a folder', async () => {
    expect((await cli(['evaluate', root])).err).toContain('expected a run folder with config.yaml');
    await rename(join(run, 'adapter'), join(root, 'away'));
    expect((await cli(['evaluate', run])).err).toContain(
      `npx blip2 fit ${join(run, 'config.yaml')} --resume`,
    );
    await rename(join(root, 'away'), join(run, 'adapter'));
    expect((await cli(['evaluate'])).code).toBe(2);
  });
});

describe('the base that an adapter names', () => {
  const adapterWith = async (base: unknown, folder = join(root, 'named')) => {
    await mkdir(folder, { recursive: true });
    for (const name of ['adapter_model.safetensors', 'adapter_config.json'])
      await copyFile(join(run, 'adapter', name), join(folder, name));
    const config = JSON.parse(await readFile(join(folder, 'adapter_config.json'), 'utf8'));
    await writeFile(
      join(folder, 'adapter_config.json'),
      JSON.stringify({ ...config, base_model_name_or_path: base }),
    );
    return folder;
  };
  const caption = (adapter: string, ...more: string[]) =>
    cli(['caption', IMAGE, '--adapter', adapter, '--backend', 'cpu', '--max-new-tokens', '3', ...more]);

  it('is used without --model, by a path from the working folder or from a folder above the adapter', async () => {
    const expected = await caption(join(run, 'adapter'), '--model', TINY);
    const own = await caption(join(run, 'adapter'));
    expect(own).toEqual({ ...expected, err: `base model: ${TINY}, which the adapter names\n` });
    await cp(TINY, join(root, 'models', 'tiny'), { recursive: true });
    const far = await caption(await adapterWith('./models/tiny', join(root, 'a', 'b')));
    expect(far).toEqual({
      ...expected,
      err: `base model: ${join(root, 'models', 'tiny')}, which the adapter names\n`,
    });
  });

  it('is an error if it is not here, with what to do', async () => {
    const gone = await caption(await adapterWith('someone/gone'));
    expect(gone.err).toContain(
      'its base model someone/gone is not here; fetch it: npx blip2 pull someone/gone, or pass',
    );
    expect((await caption(await adapterWith('/gone/model'))).err).toContain(
      '/gone/model is not here; pass its folder',
    );
    expect(await caption(await adapterWith(null))).toMatchObject({ code: 2 });
    expect(await cli(['caption', IMAGE])).toMatchObject({ code: 2, out: '' });
  });
});

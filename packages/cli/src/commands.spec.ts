import { existsSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { cli, fitArgs, IMAGE, PATTERN, TINY, tinyData } from '../spec/testing';

let data: string;
let runDir: string;
let fitted: Awaited<ReturnType<typeof cli>>;
beforeAll(async () => {
  data = await tinyData();
  runDir = join(data, 'run');
  fitted = await cli(fitArgs(data, runDir, '--set', 'controls=true'));
});

/** Runs with --json and parses stdout, which must be one JSON document. */
async function json(argv: string[]) {
  const { code, out, err } = await cli([...argv, '--json']);
  expect(err).not.toContain('error:');
  expect(code).toBe(0);
  return JSON.parse(out);
}

describe('fit', () => {
  it('prints its progress, then the table, samples and paths', () => {
    expect(fitted.code).toBe(0);
    for (const text of [
      'backend: cpu',
      'precision float32',
      'trainable params: 6,144 || all params: 43,840 || trainable%: 14.0146',
      'feature cache:',
      'validation loss',
    ])
      expect(fitted.err).toContain(text);
    for (const text of [
      'fine-tuned ',
      'linear probe ',
      'colour',
      join(runDir, 'adapter'),
      join(runDir, 'report.html'),
    ])
      expect(fitted.out).toContain(text);
    expect(fitted.err).toMatch(/step 2\/2 {2}epoch 2.00 {2}loss [\d.]+ .*images\/s {2}ETA/);
    expect(existsSync(join(runDir, 'adapter', 'adapter_config.json'))).toBe(true);
  });

  it('prints only the document on stdout with --json', async () => {
    const result = await json(fitArgs(data, join(data, 'json-run')));
    expect(result).toMatchObject({
      interrupted: false,
      steps: 2,
      table: { n: 3, split: 'test', parts: ['colour'] },
    });
  });

  it('drops the LoRA settings of a file for a preset without LoRA, and rejects LoRA options for it', async () => {
    const again = [
      'fit',
      join(runDir, 'config.yaml'),
      '--output',
      join(data, 'qformer'),
      '--preset',
      'qformer',
    ];
    const refused = await cli([...again, '--set', 'lora.r=4']);
    expect(refused.code).toBe(1);
    expect(refused.err).toContain('lora: the preset qformer has no LoRA');
    const { code, err } = await cli([
      ...again,
      '--no-cache',
      '--set',
      'max_steps=1',
      '--set',
      'controls=false',
    ]);
    expect(err).toContain('feature cache: off');
    expect(code).toBe(0);
  });

  it('repeats a run from its own config.yaml, with options that override it', async () => {
    const output = join(data, 'again');
    const result = await json([
      'fit',
      join(runDir, 'config.yaml'),
      '--output',
      output,
      '--set',
      'controls=false',
    ]);
    expect(result.table.rows.map(({ name }: { name: string }) => name)).toEqual([
      'fine-tuned',
      'blank image',
      'shuffled images',
    ]);
    expect(await readFile(join(output, 'config.yaml'), 'utf8')).toContain('learning_rate: 0.02');
  });

  it('uses the default config, and a numbered folder, only without a config file or output', async () => {
    const config = join(runDir, 'config.yaml');
    const result = await json(['fit', '--default-config', config, '--set', 'controls=false']);
    expect(result.output_dir).toBe(`${runDir}-2`);
    const { err, code } = await cli(['fit', '--default-config', config, '--model', TINY]);
    expect([code, err.includes('missing: --data')]).toEqual([2, true]);
  });

  it('does not overwrite a run', async () => {
    const { code, err } = await cli(fitArgs(data, runDir));
    expect(code).toBe(1);
    expect(err).toContain(`${runDir}: a run is already there`);
  });

  it('saves a checkpoint and prints the resume command at the first Ctrl-C', async () => {
    let interrupt = () => {};
    const args = fitArgs(data, join(data, 'stopped'), '--set', 'num_train_epochs=5');
    const stopped = await cli(args, {
      terminal: true,
      onInterrupt: (callback) => ((interrupt = callback), () => undefined),
      onStderr: (text) => void (/step 2\/5/.test(text) && interrupt()),
    });
    expect(stopped.code).toBe(130);
    const command = /continue with: npx blip2 (.*)/.exec(stopped.err)![1].split(' ');
    expect(command).toEqual(['fit', join(data, 'stopped', 'config.yaml'), '--resume']);
    const result = await json(command);
    expect(result).toMatchObject({ interrupted: false, steps: 5 });
  });
});

describe('the other commands', () => {
  const adapted = () => [
    '--model',
    TINY,
    '--adapter',
    join(runDir, 'adapter'),
    '--backend',
    'cpu',
    '--max-new-tokens',
    '12',
  ];

  it('caption prints one text per image', async () => {
    const images = [IMAGE, join(data, 'test', 'grey.png')];
    const { results } = await json(['caption', ...images, ...adapted()]);
    expect(results.map(({ image }: { image: string }) => image)).toEqual(images);
    const plain = await cli(['caption', IMAGE, ...adapted()]);
    expect(plain).toEqual({ code: 0, out: `${results[0].caption}\n`, err: '' });
  });

  it('answer depends on the question', async () => {
    const answerTo = (question: string) => json(['answer', IMAGE, '--question', question, ...adapted()]);
    const [one, other] = [await answerTo('what?'), await answerTo('is it a red thing?')];
    expect(one.results[0]).toMatchObject({ image: IMAGE, question: 'what?', answer: expect.any(String) });
    expect(one.results[0].answer).not.toBe(other.results[0].answer);
  });

  it('evaluate scores the texts of caption, together with the controls', async () => {
    const args = ['evaluate', ...adapted(), '--data', data, '--parts-pattern', PATTERN];
    const result = await json([...args, '--controls']);
    expect(result).toMatchObject({ n: 3, split: 'test', parts: ['colour'] });
    const names = result.rows.map(({ name }: { name: string }) => name);
    expect(names).toEqual([
      'model with adapter',
      'base, before training',
      'blank image',
      'shuffled images',
      'majority caption',
      'chance',
      'nearest neighbour',
      'linear probe',
    ]);
    // train and test contain the same three images
    expect(result.rows.find(({ name }: { name: string }) => name === 'nearest neighbour').exact).toBe(1);
    const right = result.predictions.filter(
      ({ text, reference }: Record<string, string>) => text === reference,
    );
    expect(result.rows[0].exact).toBeCloseTo(right.length / 3);
  });

  it('evaluate uses validation if there is no test split, and rejects bad options before generation', async () => {
    const splits = await tinyData();
    await rm(join(splits, 'test'), { recursive: true });
    const args = ['evaluate', ...adapted(), '--data', splits];
    expect(await json(args)).toMatchObject({ n: 3, split: 'validation' });
    expect(await cli([...args, '--parts-pattern', '(?<colour'])).toMatchObject({ code: 2, out: '' });
    await rm(join(splits, 'train'), { recursive: true });
    const { code, err } = await cli([...args, '--controls']);
    expect([code, err]).toEqual([
      1,
      expect.stringContaining('--controls: expected a train split, found validation'),
    ]);
    expect(err).not.toContain('of 3 images');
  });

  it('merge makes a model that generates the same text without the adapter', async () => {
    const output = join(data, 'merged');
    await rm(output, { recursive: true, force: true });
    const args = [
      'merge',
      '--model',
      TINY,
      '--adapter',
      join(runDir, 'adapter'),
      '--output',
      output,
      '--backend',
      'cpu',
    ];
    expect(await json(args)).toEqual({ output, dtype: 'F32' });
    const { results } = await json(['caption', IMAGE, ...adapted()]);
    const merged = await json([
      'caption',
      IMAGE,
      '--model',
      output,
      '--backend',
      'cpu',
      '--max-new-tokens',
      '12',
    ]);
    expect(merged.results).toEqual(results);
    expect((await cli(args)).err).toContain('expected a new or empty folder');
  });

  it('merge unties the head from the embeddings if the adapter did', async () => {
    const [run, output] = [join(data, 'head'), join(data, 'merged-head')];
    const head = ['--set', 'lora.modules_to_save=[lm_head]', '--set', 'final_evaluation=none'];
    expect((await cli(fitArgs(data, run, ...head))).code).toBe(0);
    const merged = [
      '--model',
      TINY,
      '--adapter',
      join(run, 'adapter'),
      '--output',
      output,
      '--backend',
      'cpu',
    ];
    await json(['merge', ...merged]);
    const config = JSON.parse(await readFile(join(output, 'config.json'), 'utf8'));
    expect(config.text_config.tie_word_embeddings).toBe(false);
    const captions = (model: string[]) =>
      json(['caption', IMAGE, ...model, '--backend', 'cpu', '--max-new-tokens', '12']);
    const adaptedTexts = await captions(['--model', TINY, '--adapter', join(run, 'adapter')]);
    expect((await captions(['--model', output])).results).toEqual(adaptedTexts.results);
  });

  it('a run folder as model or adapter is an error that names its adapter', async () => {
    const asModel = await cli(['caption', IMAGE, '--model', runDir]);
    expect(asModel.err).toContain(`pass its adapter as --adapter ${join(runDir, 'adapter')}`);
    const asAdapter = await cli(['caption', IMAGE, '--model', TINY, '--adapter', runDir]);
    expect(asAdapter.err).toContain(`expected its adapter: --adapter ${join(runDir, 'adapter')}`);
  });

  it('caption samples several texts reproducibly by seed, and stops at a string', async () => {
    const sampling = [
      '--do-sample',
      '--temperature',
      '2',
      '--top-k',
      '9',
      '--top-p',
      '0.9',
      '--num-return-sequences',
      '3',
    ];
    const draw = async (seed: string) =>
      (await json(['caption', IMAGE, ...adapted(), ...sampling, '--seed', seed])).results[0];
    const first = await draw('4');
    expect(first.captions).toHaveLength(3);
    expect(first.captions[0]).toBe(first.caption);
    expect(await draw('4')).toEqual(first);
    expect(await draw('5')).not.toEqual(first);
    const [{ caption }] = (await json(['caption', IMAGE, ...adapted()])).results;
    const letter = caption.replaceAll(' ', '')[0];
    const stopped = await json(['caption', IMAGE, ...adapted(), '--stop-strings', letter]);
    expect(stopped.results[0].caption.length).toBeLessThan(caption.length);
    expect(stopped.results[0].caption).toContain(letter);
  });

  it('caption --stream prints the text of one image while it is generated, and nothing else', async () => {
    const { out } = await cli(['caption', IMAGE, ...adapted()]);
    const streamed = await cli(['caption', IMAGE, ...adapted(), '--stream']);
    expect(streamed.out).toBe(out);
    const refused = await cli(['caption', IMAGE, join(data, 'test', 'grey.png'), ...adapted(), '--stream']);
    expect(refused).toMatchObject({ code: 2, out: '' });
    expect(refused.err).toContain('--stream: expected one image and one text');
  });

  it('doctor finds at least one backend and measures its speed', async () => {
    const { node, backends, backend, sharp } = await json(['doctor']);
    expect(node).toBe(process.version);
    expect(sharp).toMatch(/^\d+\.\d+\.\d+ \(libvips/);
    expect(backends.find(({ name }: { name: string }) => name === backend).gflops).toBeGreaterThan(0);
    for (const { ok, why } of backends) expect(ok || why.length > 10).toBe(true);
  });

  it('doctor prints once what is missing and how to install it', async () => {
    const lines = (await cli(['doctor'])).out.split('\n');
    expect(lines.filter((line) => line.includes('auto uses this one'))).toHaveLength(1);
    for (const line of lines.filter((text) => text.startsWith('–')))
      // a GPU's driver is not on npm
      expect(
        line.match(/npm (install|rebuild)|no Vulkan driver: install|no GPU: the Vulkan drivers/g),
        line,
      ).toHaveLength(1);
  });
});

describe('the examples of --help', () => {
  /** The words of the example in a help text, with its paths replaced by paths of this test. */
  function wordsOf(help: string, name: string): string[] {
    const line = /\$ blip2 (.*)/.exec(help)![1];
    const words = [...line.matchAll(/"([^"]*)"|(\S+)/g)].map((match) => match[1] ?? match[2]);
    const paths: Record<string, string> = {
      'models/blip2-emoji-mini': TINY,
      'data/emoji/people': data,
      'runs/emoji-demo/adapter': join(runDir, 'adapter'),
      'cat.jpg': IMAGE,
      photos: join(data, 'test'),
      'captions.jsonl': join(data, 'captions.jsonl'),
      merged: join(data, 'merged-example'),
    };
    const extra: Record<string, string[]> = {
      fit: ['--output', join(data, 'fit-example')],
      caption: ['--max-new-tokens', '4'],
      answer: ['--max-new-tokens', '4'],
    };
    return [...words.map((word) => paths[word] ?? word), ...(extra[name] ?? [])];
  }

  it.each([
    'fit',
    'caption',
    'answer',
    'evaluate',
    'inspect',
    'inspect model',
    'inspect params',
    'inspect labels',
    'inspect adapter',
    'merge',
    'doctor',
  ])('%s works', async (name) => {
    const { out } = await cli([...name.split(' '), '--help']);
    const { code, err } = await cli(wordsOf(out, name));
    expect({ code, err }).toEqual({ code: 0, err: expect.not.stringContaining('error') });
  });
});

describe('inspect', () => {
  it.each([
    ['lora', 'trainable params: 10,485,760 || all params: 3,755,247,616 || trainable%: 0.2792'],
    ['qformer', 'trainable params: 105,137,664 || all params: 3,744,761,856 || trainable%: 2.8076'],
    [
      'qformer-projection',
      'trainable params: 107,130,880 || all params: 3,744,761,856 || trainable%: 2.8608',
    ],
  ])('params counts preset %s on the full-size model without weights', async (preset, line) => {
    expect(await cli(['inspect', 'params', '--preset', preset])).toEqual({
      code: 0,
      out: `${line}\n`,
      err: '',
    });
  });

  it('params counts the parameters of a model from its config', async () => {
    const { line, modules } = await json(['inspect', 'params', '--model', TINY, '--r', '2']);
    expect(line).toMatch(/^trainable params: 768 \|\| all params: 38,464 /);
    expect(modules).toHaveLength(8);
  });

  it('model counts as many parameters as its parts have together', async () => {
    const { parameters, parts } = await json(['inspect', 'model', TINY]);
    expect(parameters).toBe(37696);
    expect(parts.reduce((sum: number, part: { parameters: number }) => sum + part.parameters, 0)).toBe(
      parameters,
    );
  });

  it('labels shows which tokens are part of the loss', async () => {
    const { out } = await cli([
      'inspect',
      'labels',
      '--data',
      data,
      '--model',
      TINY,
      '--rows',
      '1',
      '--prompt',
      'a',
    ]);
    const lines = out.split('\n').map((line) => line.trim());
    expect(lines[0]).toMatch(/metadata\.jsonl:1$/);
    expect(lines.find((line) => line.includes('<image> × 4'))).toMatch(/not learned$/);
    expect(lines.filter((line) => line.endsWith('not learned'))).toHaveLength(3); // images, start, prompt
    expect(lines.filter((line) => /→ \d+$/.test(line)).length).toBeGreaterThan(5);
  });

  it('adapter prints its settings and modules', async () => {
    const { r, parameters, modules } = await json(['inspect', 'adapter', join(runDir, 'adapter')]);
    expect([r, parameters, modules.length]).toEqual([16, 6144, 8]);
  });
});

import { readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Command } from 'commander';
import { describe, expect, it } from 'vitest';
import { decodingOptions, generateOptions } from './options';
import { cli, fitArgs, IMAGE, TINY, tinyData } from '../spec/testing';

const COMMANDS = [
  ['fit'],
  ['caption'],
  ['answer'],
  ['evaluate'],
  ['inspect'],
  ['inspect', 'model'],
  ['inspect', 'params'],
  ['inspect', 'labels'],
  ['inspect', 'adapter'],
  ['data'],
  ['data', 'check'],
  ['merge'],
  ['quantize'],
  ['studio'],
  ['cache'],
  ['cache', 'list'],
  ['cache', 'prune'],
  ['doctor'],
  ['completion'],
];

describe('help', () => {
  it.each(COMMANDS)('%s %s: prints an example and exits with 0', async (...words) => {
    const { code, out, err } = await cli([...words.filter(Boolean), '--help']);
    expect(code).toBe(0);
    expect(out).toMatch(/Example:\n {2}\$ blip2 /);
    expect(err).toBe('');
  });

  it('lists the commands', async () => {
    const { code, out } = await cli(['--help']);
    expect(code).toBe(0);
    for (const [name] of COMMANDS) expect(out).toMatch(new RegExp(`^  ${name} `, 'm'));
  });
});

describe('the version', () => {
  it.each(['-v', '-V', '--version'])('%s: prints it', async (flag) => {
    const { version } = JSON.parse(await readFile(new URL('../package.json', import.meta.url), 'utf8')) as {
      version: string;
    };
    expect(await cli([flag])).toEqual({ code: 0, out: `${version}\n`, err: '' });
  });
});

describe('fit --schema', () => {
  it('prints the JSON Schema in the recipes folder', async () => {
    const { code, out } = await cli(['fit', '--schema']);
    expect(code).toBe(0);
    expect(out).toBe(await readFile(new URL('../../../recipes/fit.schema.json', import.meta.url), 'utf8'));
    expect((await cli(['fit', '--schema', '--json'])).out).toBe(out);
  });
});

describe('the options of fit', () => {
  it('are the settings with a flag, each with its documentation', async () => {
    const { out } = await cli(['fit', '--help']);
    const options = ['model <dir>', 'data <path>', 'preset <name>', 'output <dir>', 'backend <name>'];
    const more = ['precision <name>', 'max-steps <n>', 'max-minutes <n>', 'skip-bad', 'no-cache'];
    const first = ['epochs <n>', 'batch-size <n>', 'lr <x>', 'task <name>', 'split-fractions <list>'];
    for (const option of [...options, ...more, ...first])
      expect(out).toMatch(new RegExp(`^  --${option}  `, 'm'));
    expect(out.replace(/\s+/g, ' ')).toContain('what trains (choices: "lora", "qformer",');
  });
});

describe('wrong usage exits with 2', () => {
  it.each([
    [['frob'], "unknown command 'frob'"],
    [['fit', '--modle', 'x'], 'Did you mean --model?'],
    [['fit'], 'missing: --model, --data'],
    [['fit', '--model', 'x'], 'missing: --data'],
    [['fit', '--max-steps', '1.5'], 'Expected a whole number at least 1, found "1.5".'],
    [['fit', '--max-minutes', 'x'], 'Expected a number above 0, found "x".'],
    [['fit', '--lr', '0'], 'Expected a number above 0, found "0".'],
    [['fit', '--epochs', 'ten'], 'Expected a number above 0, found "ten".'],
    [['fit', '--task', 'captions'], 'Expected one of caption, vqa (did you mean caption?)'],
    [['fit', '--split-fractions', 'train=0.8'], 'Expected shares such as validation=0.1,test=0.2'],
    [['fit', '--split-fractions', '0.6'], 'or one below 0.5 for both, found "0.6"'],
    [
      ['fit', '--backend', 'cpuu'],
      'Expected one of auto, native, tensorflow, webgpu, wasm, cpu (did you mean cpu?)',
    ],
    [['cache', 'prune', '--older-than', 'old'], 'Expected a time such as 30d or 12h, found "old".'],
    [
      ['cache', 'prune', '--all', '--older-than', '2d'],
      "option '--older-than <time>' cannot be used with option '--all'",
    ],
    [['caption', IMAGE], 'expected --model, a checkpoint folder, or --adapter'],
    [['caption', '--model', TINY], "missing required argument 'image'"],
    [
      ['caption', IMAGE, '--model', TINY, '--num-beams', '0'],
      'Expected a whole number of at least 1, found "0".',
    ],
    [
      ['caption', IMAGE, '--model', TINY, '--backend', 'gpu'],
      'Expected one of auto, native, tensorflow, webgpu, wasm, cpu',
    ],
  ])('%j', async (argv, message) => {
    const { code, out, err } = await cli(argv);
    expect(code).toBe(2);
    expect(err).toContain(message);
    expect(out).toBe('');
  });
});

describe('a failure exits with 1 and prints one screen without a stack trace', () => {
  async function fails(argv: string[], ...messages: string[]) {
    const { code, out, err } = await cli(argv);
    expect(code).toBe(1);
    for (const message of messages) expect(err).toContain(message);
    expect(err.split('\n').length).toBeLessThan(35);
    expect(err).not.toMatch(/^\s+at /m);
    expect(out).toBe('');
  }

  it('an unknown preset: lists the choices', async () => {
    const data = await tinyData();
    const args = fitArgs(data, join(data, 'run'), '--preset', 'lor');
    await fails(
      args,
      'preset: expected one of lora, qformer, qformer-projection, lora+qformer, full',
      'did you mean lora?',
    );
    await fails(
      ['inspect', 'params', '--preset', 'lor'],
      'lora, qformer, qformer-projection, lora+qformer, full',
    );
  });

  it('an unknown setting: suggests a similar name', async () => {
    const data = await tinyData();
    await fails(
      fitArgs(data, join(data, 'run'), '--set', 'lerning_rate=1'),
      'lerning_rate',
      'did you mean learning_rate?',
    );
    await fails(fitArgs(data, join(data, 'run'), '--set', 'lr=1'), 'lr: ', 'did you mean learning_rate?');
  });

  it('missing files: names them', async () => {
    await fails(['caption', 'gone.png', '--model', TINY], 'gone.png: there is no such image file or folder');
    await fails(['caption', IMAGE, '--model', 'gone'], 'gone: expected a model folder, found none');
    await fails(['caption', IMAGE, '--model', 'someone/gone'], 'blip2 pull someone/gone');
    const mistyped = join(dirname(TINY), 'tinyy');
    for (const option of ['--model', '--adapter'])
      await fails(['caption', IMAGE, option, mistyped], `no such folder; did you mean ${TINY}?`);
    await fails(['fit', '--model', mistyped, '--data', dirname(IMAGE)], `did you mean ${TINY}?`);
    await fails(['caption', IMAGE, '--model', TINY, '--adapter', 'gone'], 'gone');
    await fails(['fit', 'gone.yaml'], 'gone.yaml', 'there is no such file');
    await fails(['fit', '--model', TINY, '--data', 'gone'], 'gone');
    await fails(['inspect', 'adapter', 'gone'], 'gone');
  });

  it('an adapter as model: explains the options', async () => {
    const adapter = join(TINY, '..', 'tiny-adapter');
    await fails(['caption', IMAGE, '--model', adapter], 'this is an adapter; pass it as --adapter');
  });

  it('bad rows: lists every one and creates no run folder', async () => {
    const data = await tinyData();
    await writeFile(
      join(data, 'train', 'metadata.jsonl'),
      'no json\n{"file_name": "gone.png", "text": "a"}\n{"file_name": "red.png"}\n',
    );
    await fails(fitArgs(data, join(data, 'run')), 'metadata.jsonl:1', 'metadata.jsonl:2', 'metadata.jsonl:3');
    await fails(['inspect', 'labels', '--data', join(data, 'run'), '--model', TINY], join(data, 'run'));
  });

  it('--verbose prints the stack trace', async () => {
    const { code, err } = await cli(['caption', 'gone.png', '--model', TINY, '--verbose']);
    expect(code).toBe(1);
    expect(err).toMatch(/^\s+at .*describe/m);
  });

  it('--json prints the error as the document', async () => {
    const { code, out } = await cli(['caption', 'gone.png', '--model', TINY, '--json']);
    expect(code).toBe(1);
    expect(JSON.parse(out)).toEqual({
      error: { name: 'Error', message: 'gone.png: there is no such image file or folder' },
    });
  });
});

describe('decoding options', () => {
  const parsed = (...args: string[]) =>
    generateOptions(decodingOptions(new Command()).parse(args, { from: 'user' }).opts());

  it('have the names of generate, also --no-repeat-ngram-size', () => {
    expect(parsed()).toEqual({});
    const args = '--no-repeat-ngram-size 2 --top-k 5 --do-sample --temperature 0.5 --stop-strings . !';
    expect(parsed(...args.split(' '))).toEqual({
      no_repeat_ngram_size: 2,
      top_k: 5,
      do_sample: true,
      temperature: 0.5,
      stop_strings: ['.', '!'],
    });
  });
});

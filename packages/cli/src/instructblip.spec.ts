/** The commands with an InstructBLIP checkpoint. */
import { join } from 'node:path';
import { availableBackends } from '@blip2/nn/node';
import { beforeAll, describe, expect, it } from 'vitest';
import { cli, fitArgs, IMAGE, TINY, tinyData } from '../spec/testing';

const MODEL = `${TINY}-instructblip`;
const ADAPTER = `${MODEL}-adapter`;
const ON_CPU = ['--model', MODEL, '--backend', 'cpu'];
const backends = await availableBackends();

/** Standard output of a command that succeeds; with --json the document. */
async function out(...argv: string[]) {
  const { code, out, err } = await cli(argv);
  expect([code, err]).toEqual([0, expect.not.stringContaining('error:')]);
  return argv.includes('--json') ? JSON.parse(out) : out;
}

let data: string;
beforeAll(async () => void (data = await tinyData()));

describe('with InstructBLIP', () => {
  it("captions and answers, by default with the paper's instructions", async () => {
    const caption = (...more: string[]) => out('caption', IMAGE, ...ON_CPU, ...more);
    expect(await caption('--prompt', 'A short image description.')).toBe(await caption());
    expect(await caption('--prompt', 'a')).not.toBe(await caption());
    const answer = (...more: string[]) => out('answer', IMAGE, ...ON_CPU, '--question', 'how many?', ...more);
    expect(await answer('--prompt', 'Question: {} Short answer:')).toBe(await answer());
  });

  it('refuses an instruction that is too long for the Q-Former', async () => {
    const long = Array(12).fill('the wall').join(' ');
    const { code, err } = await cli(['answer', IMAGE, ...ON_CPU, '--question', long]);
    expect(code).toBe(1);
    expect(err).toMatch(
      /prompt: expected a prompt of at most 24 tokens of the Q-Former, found \d+ in "Question/,
    );
  });

  it('an adapter and the merged model write the same texts, which the base does not', async () => {
    const merged = join(data, 'merged');
    await out('merge', '--model', MODEL, '--adapter', ADAPTER, '--output', merged);
    const caption = (...model: string[]) =>
      out('caption', IMAGE, '--backend', 'cpu', '--num-beams', '3', '--json', ...model);
    const [base, adapted, whole] = [
      await caption('--model', MODEL),
      await caption('--model', MODEL, '--adapter', ADAPTER),
      await caption('--model', merged),
    ];
    expect(adapted.results).toEqual(whole.results);
    expect(adapted.results).not.toEqual(base.results);
  });

  it('inspect shows what the Q-Former reads', async () => {
    const { sizes } = await out('inspect', 'model', MODEL, '--json');
    expect(sizes.qformer).toBe(
      '4 queries, 3 layers × 16, reads the instruction: vocabulary 72, 24 positions',
    );
    const labels = ['inspect', 'labels', '--data', data, '--model', MODEL, '--split', 'train', '--rows', '1'];
    expect(await out(...labels, '--prompt', 'a red heart')).toContain(
      'the Q-Former reads [CLS] a red heart [SEP]\n',
    );
    const { rows } = await out(...labels, '--prompt', 'a red heart', '--json');
    expect(rows[0].instruction).toEqual(['[CLS]', 'a', 'red', 'heart', '[SEP]']);
  });

  it('plans every preset, fits and evaluates', { timeout: 300_000 }, async () => {
    const plan = [
      'plan',
      '--model',
      MODEL,
      '--data',
      data,
      '--set',
      'per_device_train_batch_size=2',
      '--json',
    ];
    const { presets } = await out(...plan);
    expect(presets.map(({ preset }: { preset: string }) => preset)).toEqual(
      expect.arrayContaining(['lora', 'qformer', 'qformer-projection', 'lora+qformer', 'full']),
    );
    expect(await out(...fitArgs(data, join(data, 'run'), '--model', MODEL))).toContain('fine-tuned');
    const adapter = ['--adapter', join(data, 'run/adapter')];
    const scores = await out('evaluate', ...ON_CPU, ...adapter, '--data', data, '--split', 'test', '--json');
    expect(scores).toHaveProperty('split', 'test');
  });

  it.skipIf(!backends.includes('native')).each([
    ['int8', ['--bits', '8']],
    ['int4', ['--bits', '4', '--data', 'DATA']],
  ])('quantised to %s it is used with both tokenizers', async (name, args) => {
    const dir = join(data, name);
    const given = args.map((arg) => (arg === 'DATA' ? data : arg));
    await out('quantize', '--model', MODEL, '--output', dir, ...given, '--json');
    const native = ['--model', dir, '--backend', 'native', '--precision', 'int8'];
    expect(await out('answer', IMAGE, ...native, '--question', 'how many?')).toMatch(/\n$/);
    const fit = fitArgs(data, join(data, `${name}-run`), '--model', dir, '--backend', 'native');
    expect(await out(...fit, '--precision', 'int8')).toContain('fine-tuned');
  });
});

/** The commands with a checkpoint whose text model is T5. */
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { cli, fitArgs, IMAGE, TINY, tinyData } from '../spec/testing';

const MODEL = `${TINY}-t5`;
const ADAPTER = `${MODEL}-adapter`;
const ON_CPU = ['--model', MODEL, '--backend', 'cpu'];

/** Standard output of a command that succeeds; with --json the document. */
async function out(...argv: string[]) {
  const { code, out, err } = await cli(argv);
  expect([code, err]).toEqual([0, expect.not.stringContaining('error:')]);
  return argv.includes('--json') ? JSON.parse(out) : out;
}

let data: string;
beforeAll(async () => void (data = await tinyData()));

describe('with T5', () => {
  it('captions and answers, by default with the template of the paper', async () => {
    expect(await out('caption', IMAGE, ...ON_CPU)).toMatch(/\w/);
    const answer = (...more: string[]) =>
      out('answer', IMAGE, ...ON_CPU, '--question', 'what colour is the heart?', ...more);
    const usual = await answer();
    expect(await answer('--prompt', 'Question: {} Short answer:')).toBe(usual);
    expect(await answer('--prompt', 'Question: {} Answer:')).not.toBe(usual);
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

  it('inspect lists the parts of the model, what trains, and the labels of the target rows', async () => {
    const { sizes, parameters } = await out('inspect', 'model', MODEL, '--json');
    expect(sizes.text).toBe('vocabulary 64, 2 + 2 layers × 24');
    expect(parameters).toBeGreaterThan(10_000);
    expect(await out('inspect', 'params', '--model', MODEL, '--preset', 'lora', '--list')).toContain(
      'SelfAttention.q',
    );
    const { rows } = await out(
      'inspect',
      'labels',
      '--data',
      data,
      '--model',
      MODEL,
      '--split',
      'train',
      '--rows',
      '1',
      '--json',
    );
    const learned = rows[0].tokens.filter(({ label }: { label: number | null }) => label !== null);
    expect(learned.map(({ token }: { token: string }) => token).join('')).toMatch(/thing<\/s>$/);
    expect(rows[0].tokens[4]).toMatchObject({ position: 4, id: 1, token: '</s>', label: null }); // ends the encoder's row
  });

  it('plans every preset, and fit follows', async () => {
    const { presets } = await out(
      'plan',
      ...ON_CPU,
      '--data',
      data,
      '--set',
      'per_device_train_batch_size=2',
      '--json',
    );
    expect(presets.map(({ preset }: { preset: string }) => preset)).toEqual(
      expect.arrayContaining(['lora', 'qformer', 'qformer-projection', 'lora+qformer', 'full']),
    );
    expect(await out(...fitArgs(data, join(data, 'run'), '--model', MODEL))).toContain('fine-tuned');
  });
});

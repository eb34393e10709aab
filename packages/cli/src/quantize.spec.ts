/** `blip2 quantize`, and the other commands with what it wrote. */
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { availableBackends } from '@blip2/nn/node';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { cli, fitArgs, IMAGE, TINY, tinyData } from '../spec/testing';

const backends = await availableBackends();

describe.skipIf(!backends.includes('native'))('quantize', () => {
  let root: string;
  const out = (name: string) => join(root, name);
  const quantize = (name: string, ...args: string[]) =>
    cli(['quantize', '--model', TINY, '--output', out(name), '--json', ...args]);
  beforeAll(async () => {
    root = await tinyData();
    vi.stubEnv('XDG_CACHE_HOME', await mkdtemp(join(tmpdir(), 'blip2-quantize-')));
  });
  afterAll(async () => {
    await rm(process.env.XDG_CACHE_HOME!, { recursive: true });
    vi.unstubAllEnvs();
    await rm(root, { recursive: true });
  });

  it.each([
    ['int8', ['--bits', '8'], ['int8']],
    ['nf4', ['--bits', '4', '--format', 'nf4'], ['nf4']],
    ['int4', ['--bits', '4'], ['int4', 'int8']],
  ])('%s: is written, and used by caption, inspect, plan and fit', async (name, args, formats) => {
    const { code, out: json } = await quantize(name, ...args);
    expect(code).toBe(0);
    const { weights, format } = JSON.parse(json);
    expect([format, Object.keys(weights).sort()]).toEqual([name, formats]);
    const plain = await cli(['caption', IMAGE, '--model', out(name), '--backend', 'native']);
    expect(/int8 weights: without smoothing/.test(plain.err)).toBe(name === 'int4');
    for (const precision of ['float32', 'int8', 'int4']) {
      const native = ['--backend', 'native', '--precision', precision];
      const made = await cli(['caption', IMAGE, '--model', out(name), ...native]);
      expect([made.code, made.err]).toEqual([0, expect.not.stringContaining('error')]);
    }
    for (const command of [
      ['inspect', 'model', out(name)],
      ['plan', '--model', out(name), '--data', root, '--json'],
    ]) {
      const { code, err } = await cli(command);
      expect([command[0], code, code === 0 ? '' : err]).toEqual([command[0], 0, '']);
    }
    const fitted = await cli(fitArgs(root, out(`${name}-run`), '--model', out(name), '--backend', 'native'));
    expect([fitted.code, fitted.err]).toEqual([0, expect.not.stringContaining('error:')]);
    const merged = await cli([
      ...['merge', '--model', out(name), '--adapter', join(out(`${name}-run`), 'adapter')],
      ...['--output', out(`${name}-merged`), '--backend', 'native'],
    ]);
    expect(merged.code).toBe(0);
    const config = await readFile(join(out(`${name}-merged`), 'config.json'), 'utf8');
    expect(config).not.toContain('quantization_config');
  });

  it('fits int4 to pictures, and reports loss, tokens and layers', async () => {
    const { code, out: json } = await quantize('reported', '--bits', '4', '--data', root, '--report');
    expect(code).toBe(0);
    const found = JSON.parse(json);
    expect(found.same_tokens).toBeGreaterThan(0.5);
    expect(found.same_tokens).toBeLessThanOrEqual(1);
    expect(found.loss.quantised / found.loss.exact).toBeCloseTo(1, 0);
    const errors = found.worst.map(({ error }: { error: number }) => error);
    expect(errors).toEqual(errors.toSorted((a: number, b: number) => b - a));
    expect(errors[0]).toBeGreaterThan(0.02);
    expect(found.text.fitted).toBeLessThan(0.8 * found.text.plain);
    expect(found.plain_same_tokens).toBeLessThanOrEqual(1);
    expect(found.loss.plain).toBeGreaterThan(0);
    expect(await readdir(out('reported'))).not.toContain('fitted-weights');
    const text = await cli([
      ...['quantize', '--model', TINY, '--output', out('text'), '--bits', '8', '--data', root, '--report'],
    ]);
    expect(text.out).toMatch(/^quantised model: .*text \(matrices: \d+ in int8\)$/m);
    expect(text.out).toMatch(/^outputs of \d+ layers change by [\d.]+ % in the mean; the worst:$/m);
    expect(text.out).toMatch(
      /^on \d+ other rows: loss [\d.]+ \([\d.]+ before\), [\d.]+ % of the likeliest tokens/m,
    );
  });

  it('refuses other bits and formats, a report without pictures, and a folder that exists', async () => {
    for (const [args, message] of [
      [['--bits', '3'], '--bits: expected 8 or 4, found "3"'],
      [['--bits', '8', '--format', 'nf4'], '--format: expected int8 for 8 bits, found "nf4"'],
      [['--bits', '4', '--report'], '--report: expected --data with it'],
    ] as const) {
      const { code, err } = await quantize('refused', ...args);
      expect([code, err]).toEqual([2, expect.stringContaining(message)]);
      expect(existsSync(out('refused'))).toBe(false);
    }
    await quantize('twice', '--bits', '8');
    const { code, err } = await quantize('twice', '--bits', '8');
    expect([code, err]).toEqual([1, expect.stringContaining('twice')]);
  });
});

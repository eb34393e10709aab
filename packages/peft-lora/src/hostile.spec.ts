/**
 * Damaged and hostile adapter folders: read and applied to a model, or refused with an AdapterError; nothing else is thrown
 * and nothing hangs. `npm run sweep -w packages/data-captions` tries 40 times as many.
 */
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { useBackend } from '@blip2/nn/node';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AdapterError } from './errors';
import { loadAdapter } from './adapter-folder';
import { applyAdapter } from './apply';
import { loraConfig } from './config';
import { matchTargets } from './match';
import { countPreset } from './presets';
import { baseTree, fixture, opt27bTable } from '../spec/fixtures';

const SCALE = Number(process.env.BLIP2_SWEEP ?? 1);
const LONG = 60_000 + 30_000 * SCALE;

let folder: string;
let base: object;
const counts = new Map<string, { read: number; refused: number }>();
beforeAll(async () => {
  await useBackend('cpu');
  base = await baseTree();
  folder = await mkdtemp(join(tmpdir(), 'adapter-'));
  await cp(fixture('adapter'), folder, { recursive: true });
});
afterAll(async () => {
  await rm(folder, { recursive: true });
  if (SCALE > 1)
    for (const [kind, { read, refused }] of counts)
      console.error(`${kind}: ${read} read, ${refused} refused`);
});

/** Replaces a file of the adapter by each input, and loads and applies the adapter. */
async function sweep(
  name: string,
  kind: string,
  inputs: fc.Arbitrary<Buffer>,
  numRuns: number,
): Promise<void> {
  const file = join(folder, name);
  const good = await readFile(file);
  const count = { read: 0, refused: 0 };
  counts.set(kind, count);
  const one = async (bytes: Buffer) => {
    await writeFile(file, bytes);
    try {
      applyAdapter(base, await loadAdapter(folder));
      count.read++;
    } catch (error) {
      if (!(error instanceof AdapterError)) throw error;
      count.refused++;
    }
  };
  await fc.assert(fc.asyncProperty(fc.oneof(fc.constant(good), inputs), one), { numRuns: numRuns * SCALE });
  await writeFile(file, good);
  expect(Math.min(count.read, count.refused)).toBeGreaterThan(0);
}

function damaged(good: Buffer): fc.Arbitrary<Buffer> {
  const edits = fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 });
  const flipped = edits.map((all) => {
    const copy = Buffer.from(good);
    for (const [at, value] of all) copy[at] = value;
    return copy;
  });
  return fc.oneof(
    flipped,
    fc.nat(good.length).map((n) => good.subarray(0, n)),
  );
}

describe('hostile adapters', () => {
  it('adapter_config.json: changed, cut, and with any values in its fields', { timeout: LONG }, async () => {
    const good = await readFile(join(folder, 'adapter_config.json'));
    const config = JSON.parse(good.toString()) as Record<string, unknown>;
    const regex = fc.constantFrom(
      '.*q_proj',
      '(a+)+$',
      '((.*)*)*x',
      '(',
      '(?P<a>q)_proj',
      '[',
      'q_proj|',
      '\\1',
      '(?<!a)b',
    );
    const value = fc.oneof(
      fc.jsonValue(),
      regex,
      fc.dictionary(regex, fc.nat(8)),
      fc.array(fc.string()),
      fc.double(),
    );
    const fields = fc.dictionary(fc.constantFrom(...Object.keys(config)), value, { maxKeys: 4 });
    const json = fc.oneof(
      fields.map((given) => ({ ...config, ...given })),
      fc.jsonValue(),
    );
    const text = json.map((x) => Buffer.from(JSON.stringify(x)));
    await sweep('adapter_config.json', 'adapter_config.json', fc.oneof(text, damaged(good)), 200);
  });

  it('adapter_model.safetensors: changed and cut', { timeout: LONG }, async () => {
    const name = 'adapter_model.safetensors';
    await sweep(name, name, damaged(await readFile(join(folder, name))), 100);
  });

  it.each([
    { target_modules: '([^!]+)+!' },
    { target_modules: '.*.*.*.*.*.*.*.*.*.*!' },
    { target_modules: ['q_proj'], rank_pattern: { '([^!]+)+!': 4 } },
    { target_modules: ['q_proj'], layers_to_transform: 1, layers_pattern: '(.+)+!' },
    { target_modules: `${'.?'.repeat(45)}!` },
    { target_modules: `${'(.|.)'.repeat(45)}!` },
    { target_modules: ['q_proj'], exclude_modules: `${'.?'.repeat(45)}!` },
    { target_modules: ['q_proj'], alpha_pattern: { [`${'(.|.)'.repeat(45)}!`]: 4 } },
  ])('a pattern that takes forever is refused: %j', (options) => {
    expect(() => matchTargets(loraConfig(options), opt27bTable())).toThrow(
      /expected patterns that take at most 4 s on the model's names/,
    );
  });

  it.each(['([^!]+)+!', `${'(.|.)'.repeat(45)}!`])('also as names that train beside a preset: %s', (one) => {
    expect(() => countPreset(opt27bTable(), { patterns: [one] })).toThrow(
      /patterns .*: expected patterns that take at most 4 s on the model's names/,
    );
  });

  it('layers that the model does not have are refused, unless PEFT wrote the file', () => {
    const config = (layers_to_transform: number[], layers_pattern?: string) =>
      loraConfig({ target_modules: ['q_proj'], layers_to_transform, layers_pattern });
    expect(matchTargets(config([0, 31]), opt27bTable())).toHaveLength(2);
    for (const pattern of [undefined, 'layers']) {
      expect(() => matchTargets(config([31, 32, 999], pattern), opt27bTable())).toThrow(
        /layers_to_transform 32: the targets are in layers 0 to 31\n.*layers_to_transform 999/,
      );
      expect(matchTargets(config([31, 32], pattern), opt27bTable(), false)).toHaveLength(1);
    }
    const many = Array.from({ length: 300_000 }, (_, i) => i);
    expect(() => matchTargets(config(many), opt27bTable())).toThrow(/… and \d+ more/);
  });

  it('many names and many patterns are no problem', () => {
    const many = Array.from({ length: 200_000 }, (_, i) => `none${i}`);
    const names = loraConfig({ target_modules: [...many, 'q_proj'] });
    expect(matchTargets(names, opt27bTable(), false)).toHaveLength(32);
    expect(() => matchTargets(names, opt27bTable())).toThrow(
      /"none0"; similar names: .*\n {2}… and 199985 more/s,
    );
    const rank_pattern = Object.fromEntries(many.slice(0, 400).map((name) => [name, 2]));
    const ranks = matchTargets(loraConfig({ target_modules: ['q_proj'], rank_pattern }), opt27bTable());
    expect(ranks).toHaveLength(32);
  });

  it('a rank above the smaller side of its matrix is refused before memory is taken', () => {
    const most = loraConfig({ target_modules: ['q_proj'], r: 2560 });
    expect(matchTargets(most, opt27bTable())).toHaveLength(32);
    expect(() => matchTargets({ ...most, r: 1_000_000 }, opt27bTable())).toThrow(
      /r: expected at most the smaller side of each matrix, .*\n.*q_proj \[2560, 2560\]: r 1000000/,
    );
  });

  it('very deeply nested', async () => {
    const file = join(folder, 'adapter_config.json');
    const good = await readFile(file);
    const deep = '['.repeat(100_000) + ']'.repeat(100_000);
    for (const text of [deep, `{"peft_type": ${deep}}`, `{"peft_type": "LORA", "target_modules": ${deep}}`]) {
      await writeFile(file, text);
      await expect(loadAdapter(folder)).rejects.toThrow(AdapterError);
    }
    const kept = { ...(JSON.parse(good.toString()) as object), more: 0 };
    await writeFile(file, JSON.stringify(kept).replace('"more":0', `"more":${deep}`));
    await loadAdapter(folder).catch((error) => expect(error).toBeInstanceOf(AdapterError));
    await writeFile(file, good);
  });
});

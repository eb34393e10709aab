/**
 * Damaged and hostile settings, model configurations and checkpoints: read, or refused with an error that names the file; a damaged
 * checkpoint is passed over. `npm run sweep -w packages/data-captions` makes 40 times as many.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ModelError } from '@blip2/blip2';
import { loadConfig } from '@blip2/blip2/node';
import { useBackend } from '@blip2/nn/node';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findCheckpoint, writeCheckpoint } from '../src/run/checkpoint';
import { ConfigError, parseConfig, readConfigFile, toYaml } from '../src/config';
import { tinyConfig, TINY_MODEL } from './tiny';
import { toyParts } from './toy';
import { initialState } from '../src/train/train';

const SCALE = Number(process.env.BLIP2_SWEEP ?? 1);
const LONG = 60_000 + 30_000 * SCALE;

let folder: string;
const counts = new Map<string, { read: number; refused: number }>();
beforeAll(async () => {
  await useBackend('cpu');
  folder = await mkdtemp(join(tmpdir(), 'blip2-hostile-'));
});
afterAll(async () => {
  await rm(folder, { recursive: true });
  if (SCALE > 1)
    for (const [kind, { read, refused }] of counts)
      console.error(`${kind}: ${read} read, ${refused} refused`);
});

/** Some bytes changed, the end cut off, or nothing done. */
function damaged(good: Buffer): fc.Arbitrary<Buffer> {
  const edits = fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 });
  const flipped = edits.map((all) => {
    const copy = Buffer.from(good);
    for (const [at, value] of all) copy[at] = value;
    return copy;
  });
  return fc.oneof(
    fc.constant(good),
    flipped,
    fc.nat(good.length).map((n) => good.subarray(0, n)),
  );
}

/** Writes each input to the file; `read` says whether it was taken, or throws a `named` error. */
async function sweep(
  file: string,
  inputs: fc.Arbitrary<Buffer>,
  numRuns: number,
  named: new (...args: never[]) => Error,
  read: () => Promise<boolean>,
): Promise<void> {
  const count = { read: 0, refused: 0 };
  counts.set(file, count);
  const one = async (bytes: Buffer) => {
    await writeFile(join(folder, file), bytes);
    try {
      count[(await read()) ? 'read' : 'refused']++;
    } catch (error) {
      if (!(error instanceof named)) throw error;
      expect(error.message).toContain(file);
      count.refused++;
    }
  };
  await fc.assert(fc.asyncProperty(inputs, one), { numRuns: numRuns * SCALE });
  expect(Math.min(count.read, count.refused)).toBeGreaterThan(0);
}

describe('hostile files of a run', () => {
  it("a model's config.json", { timeout: LONG }, async () => {
    const good = await readFile(join(TINY_MODEL, 'config.json'));
    const config = JSON.parse(good.toString()) as Record<string, Record<string, unknown>>;
    const part = (name: string) => {
      const values = fc.oneof(fc.jsonValue(), fc.double(), fc.maxSafeInteger());
      const fields = fc.dictionary(fc.constantFrom(...Object.keys(config[name])), values, { maxKeys: 3 });
      return fc.oneof(
        fields.map((given) => ({ ...config, [name]: { ...config[name], ...given } })),
        fc.jsonValue(),
      );
    };
    const json = fc.oneof(part('text_config'), part('vision_config'), part('qformer_config'));
    const text = json.map((x) => Buffer.from(JSON.stringify(x)));
    await sweep('config.json', fc.oneof(text, damaged(good)), 200, ModelError, async () => {
      await loadConfig(folder);
      return true;
    });
  });

  it('settings in YAML', { timeout: LONG }, async () => {
    const good = Buffer.from(toYaml(tinyConfig(folder)));
    const bomb = Buffer.from(
      ['a: &a [x,x,x,x,x,x,x,x,x]', ...'bcdefghi']
        .map((name, i, all) =>
          i === 0
            ? name
            : `${name}: &${name} [${Array(9)
                .fill(`*${all[i - 1][0]}`)
                .join()}]`,
        )
        .join('\n'),
    );
    const inputs = fc.oneof(
      damaged(good),
      fc.constant(bomb),
      fc.string().map((text) => Buffer.from(text)),
    );
    const quiet = inputs.filter((bytes) => !bytes.includes('%')); // directives, of which the library warns
    await sweep('settings.yaml', quiet, 200, ConfigError, async () => {
      const file = join(folder, 'settings.yaml');
      parseConfig(await readConfigFile(file), file);
      return true;
    });
  });

  it.each(['state.json', 'trainables.safetensors', 'optimizer.safetensors'])(
    'checkpoints: %s',
    { timeout: LONG },
    async (name) => {
      const { trainables, optimizer } = toyParts({ batch: 2 });
      const identity = { settings: {}, base: '', data: '', backend: 'cpu' };
      const state = { ...initialState(), step: 3 };
      const dir = await writeCheckpoint(folder, trainables, optimizer, { train: state, identity, logs: {} });
      const good = await readFile(join(dir, name));
      await sweep(join('checkpoints/step-000003', name), damaged(good), 100, Error, async () => {
        const { found, damaged } = await findCheckpoint(folder);
        if (found) expect(found.train).toEqual(state);
        if (found && name !== 'state.json') expect(await readFile(join(dir, name))).toEqual(good);
        return damaged.length === 0;
      });
    },
  );
});

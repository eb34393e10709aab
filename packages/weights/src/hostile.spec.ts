/**
 * Damaged and hostile weight files are either read or rejected with a WeightsError. Nothing else is thrown, and no array is
 * allocated that is larger than the file. `npm run sweep -w packages/data-captions` makes 40 times as many.
 */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DTYPES } from './dtype';
import { WeightsError } from './errors';
import { openWeights } from './files';
import { openTorchCheckpoint } from './torch-checkpoint';
import { writeSafetensors, writeSharded } from './writer';

const SCALE = Number(process.env.BLIP2_SWEEP ?? 1);
const LONG = 60_000 + 30_000 * SCALE;
const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));

let folder: string;
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), 'weights-'))));
const counts = new Map<string, { read: number; refused: number }>();
afterAll(async () => {
  await rm(folder, { recursive: true });
  if (SCALE > 1)
    for (const [kind, { read, refused }] of counts)
      console.error(`${kind}: ${read} read, ${refused} refused`);
});

/** Opens a path and reads all of it. */
async function readAll(path: string): Promise<void> {
  const reader = await openWeights(path);
  try {
    for (const name of reader.entries.keys()) await reader.readRaw(name);
  } finally {
    await reader.close();
  }
}

/** Tries `numRuns` inputs; each is read or rejected with a WeightsError. */
async function sweep<T>(
  kind: string,
  inputs: fc.Arbitrary<T>,
  numRuns: number,
  work: (input: T) => Promise<void>,
): Promise<void> {
  const count = { read: 0, refused: 0 };
  counts.set(kind, count);
  const one = async (input: T) => {
    try {
      await work(input);
      count.read++;
    } catch (error) {
      if (!(error instanceof WeightsError)) throw error;
      count.refused++;
    }
  };
  const before = process.memoryUsage().rss;
  await fc.assert(fc.asyncProperty(inputs, one), { numRuns: numRuns * SCALE });
  expect(process.memoryUsage().rss - before).toBeLessThan(1 << 30);
  expect(count.read).toBeGreaterThan(0);
  expect(count.refused).toBeGreaterThan(0);
}

/** The bytes with some changed, or cut off, or unchanged. */
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

/** A safetensors file with this header. */
function withHeader(text: string, dataBytes: number): Buffer {
  const json = Buffer.from(text);
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(json.byteLength));
  return Buffer.concat([prefix, json, Buffer.alloc(dataBytes)]);
}

describe('hostile weights', () => {
  it('safetensors: headers of any JSON, changed and cut files, any bytes', { timeout: LONG }, async () => {
    const field = fc.oneof(
      fc.jsonValue(),
      fc.record(
        {
          dtype: fc.oneof(fc.constantFrom(...DTYPES), fc.jsonValue()),
          shape: fc.oneof(fc.array(fc.oneof(fc.nat(8), fc.double())), fc.jsonValue()),
          data_offsets: fc.oneof(
            fc.tuple(fc.nat(16), fc.nat(16)),
            fc.array(fc.maxSafeInteger()),
            fc.jsonValue(),
          ),
        },
        { requiredKeys: [] },
      ),
    );
    const header = fc
      .tuple(fc.dictionary(fc.string(), field, { maxKeys: 4 }), fc.nat(24))
      .map(([json, data]) => withHeader(JSON.stringify(json), data));
    const file = join(folder, 'a.safetensors');
    const tensors = ['F32', 'BF16', 'I64'] as const;
    await writeSafetensors(
      file,
      tensors.map((dtype, i) => ({
        name: `t${i}`,
        dtype,
        shape: [2],
        data: new Uint8Array(2 * [4, 2, 8][i]),
      })),
    );
    const base = await readFile(file);
    await sweep('safetensors', fc.oneof(header, damaged(base), fc.uint8Array()), 600, async (bytes) => {
      await writeFile(file, bytes);
      await readAll(file);
    });
  });

  it('the index of a sharded folder: any JSON, changed and cut', { timeout: LONG }, async () => {
    const dir = join(folder, 'sharded');
    const tensors = ['a', 'b', 'c'].map((name) => ({
      name,
      dtype: 'F32' as const,
      shape: [1],
      data: Float32Array.of(1),
    }));
    await writeSharded(dir, tensors, { maxShardBytes: 4 });
    const index = join(dir, 'model.safetensors.index.json');
    const good = await readFile(index);
    const shard = fc.constantFrom('model-00001-of-00003.safetensors', 'gone.safetensors', '../a.safetensors');
    const map = fc.dictionary(fc.constantFrom('a', 'b', '__proto__'), fc.oneof(shard, fc.jsonValue()));
    const json = fc.oneof(fc.jsonValue(), fc.record({ weight_map: fc.oneof(map, fc.jsonValue()) }));
    const text = json.map((value) => Buffer.from(JSON.stringify(value)));
    await sweep('safetensors index', fc.oneof(text, damaged(good)), 200, async (bytes) => {
      await writeFile(index, bytes);
      await readAll(dir);
    });
  });

  it('torch checkpoints: changed and cut', { timeout: LONG }, async () => {
    const file = join(folder, 'a.pth');
    const good = await readFile(fixture('lavis/trained.pth'));
    await sweep('torch checkpoint', damaged(good), 100, async (bytes) => {
      await writeFile(file, bytes);
      const checkpoint = await openTorchCheckpoint(file);
      try {
        for (const name of checkpoint.tensors.keys()) await checkpoint.readFloat32(name);
      } finally {
        await checkpoint.close();
      }
    });
  });

  it('headers that declare more than fits into memory', async () => {
    const dir = join(folder, 'bombs');
    await mkdir(dir);
    const deep = '['.repeat(200_000) + ']'.repeat(200_000);
    const entry = (shape: string, end: number) =>
      `{"w":{"dtype":"F32","shape":${shape},"data_offsets":[0,${end}]}}`;
    const bombs: Record<string, Buffer> = {
      size: withHeader(entry('[1000000000000]', 4e12), 8),
      zeros: withHeader(entry('[4294967296,4294967296,0]', 0), 0),
      shape: withHeader(entry(deep, 8), 8),
      nested: withHeader(`{"w":${deep}}`, 8),
      metadata: withHeader(`{"__metadata__":${deep}}`, 0),
      length: Buffer.from([255, 255, 255, 5, 0, 0, 0, 0, 123, 125]),
    };
    const before = process.memoryUsage().rss;
    for (const [name, bytes] of Object.entries(bombs)) {
      const file = join(dir, `${name}.safetensors`);
      await writeFile(file, bytes);
      if (name === 'zeros') await readAll(file).catch((error) => expect(error).toBeInstanceOf(WeightsError));
      else await expect(readAll(file), name).rejects.toThrow(WeightsError);
    }
    expect(process.memoryUsage().rss - before).toBeLessThan(300 << 20);
  });
});
